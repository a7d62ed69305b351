"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): settings in `config`, computation in `model`."""
