"""Adapters (Houlsby et al. 2019, arXiv 1902.00751): settings in `config`, computation in `model`."""
