"""Around PyTorch's own calls: patches, and what they notice of optimizers, gradients and places in the script."""
