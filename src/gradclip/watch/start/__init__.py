"""Before a script is watched: its interpreter is prepared, and the parts of the watch are put together."""
