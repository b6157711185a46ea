"""Where a picture was repainted."""
