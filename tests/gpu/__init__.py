"""The GPU backend, against float64."""
