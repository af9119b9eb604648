"""What a run file says, read once and put into words: what the checks and the report both stand on."""
