"""Where an image was repainted."""
