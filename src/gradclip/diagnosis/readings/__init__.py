"""What is read from a run file once: its steps and layers, the order of its events, its losses."""
