"""Calls in the wrong order, or on the wrong tensors; each follows exactly from what the script called."""
