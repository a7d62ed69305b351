"""ADePT (Tang et al. 2025, arXiv 2501.03291): settings in `config`, computation in `model`."""
