"""Vision models of transformers: settings, weights, grid features."""
