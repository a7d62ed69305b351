"""Several methods at once: settings in `config`, the composition in `model`."""
