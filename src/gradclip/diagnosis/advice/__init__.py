"""What findings and ``gradclip suggest`` advise, as code with the run's own numbers, and whether it helped."""
