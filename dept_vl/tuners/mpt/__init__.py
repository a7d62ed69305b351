"""MPT, multitask prompt tuning (Wang et al. 2023, arXiv 2303.02861): settings in `config`, computation in `model`."""
