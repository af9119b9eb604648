"""A clipping threshold that does not fit the norms."""
