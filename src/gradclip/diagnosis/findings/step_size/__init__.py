"""Steps too long or too short for the weights."""
