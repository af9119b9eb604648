"""From observed calls to a run file: steps are told apart, measured on their device, and written in batches."""
