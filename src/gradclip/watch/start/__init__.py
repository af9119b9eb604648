"""Before the script runs: its interpreter is prepared, and the parts of the watch are put together."""
