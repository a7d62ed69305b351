"""ATTEMPT (Asai et al. 2022, arXiv 2205.11961): settings in `config`, computation in `model`."""
