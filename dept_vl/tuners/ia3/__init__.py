"""(IA)3 (Liu et al. 2022, arXiv 2205.05638): settings in `config`, computation in `model`."""
