"""BitFit (Ben Zaken et al. 2022, arXiv 2106.10199): settings in `config`, computation in `model`."""
