"""Around PyTorch's own calls: patches, and the session that makes steps of them."""
