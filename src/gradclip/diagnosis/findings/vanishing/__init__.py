"""Layers that learn nothing because no gradient reaches them."""
