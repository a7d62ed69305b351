"""Hyperdecoders (Ivison & Peters 2022, arXiv 2203.08304): settings in `config`, computation in `model`."""
