"""Reading raw files: JSON, text, images and the Karpathy splits, with errors that name file and record."""
