"""Norms or losses that grow out of bounds, and NaN."""
