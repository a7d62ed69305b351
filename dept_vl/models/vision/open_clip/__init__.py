"""CLIP image towers of open_clip: settings, weights, grid features."""
