"""HyperFormer++ (Karimi Mahabadi et al. 2021, arXiv 2106.04489): settings in `config`, computation in `model`."""
