"""Image models of timm, by their ``forward_features``: settings, weights, grid features."""
