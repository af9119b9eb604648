"""What several findings look for: explosions, harm, raised rates, clippings, small or missing gradients."""
