"""P-tuning of CLIP-T5 (Liu et al. 2021, arXiv 2103.10385): settings in `config`, computation in `model`."""
