"""From observed steps to a run file: gradients are measured on their device, and written in batches."""
