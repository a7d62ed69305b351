"""How prepared rows, images and cached features are stored and read."""
