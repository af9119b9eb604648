"""What the checks advise, as code with this run's own numbers."""
