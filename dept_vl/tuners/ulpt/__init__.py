"""ULPT (Wu et al. 2025, arXiv 2502.04501): settings in `config`, computation in `model`."""
