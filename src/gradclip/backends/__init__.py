"""Backends: measure, combine and apply, for one framework each. They know no method, and a method knows no framework."""
