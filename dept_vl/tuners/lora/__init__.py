"""LoRA (Hu et al. 2022, arXiv 2106.09685): settings in `config`, computation in `model`."""
