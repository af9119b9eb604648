"""The compiled kernel, and what stands in for it."""
