"""When the script is over: how it ended, what was seen, what was found, and where the report is."""
