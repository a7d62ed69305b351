"""DePT, decomposed prompt tuning (Shi & Lipani, arXiv 2309.05173): settings in `config`, computation in `model`."""
