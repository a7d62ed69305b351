"""Prefix tuning (Li & Liang 2021, arXiv 2101.00190): settings in `config`, computation in `model`."""
