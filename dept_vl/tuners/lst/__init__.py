"""Ladder side-tuning (Sung et al. 2022, arXiv 2206.06522): settings in `config`, the tuner in `model`."""
