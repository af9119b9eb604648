"""A run for its reader: one self-contained HTML page, or text for a terminal, from plain numbers. Knows no framework."""
