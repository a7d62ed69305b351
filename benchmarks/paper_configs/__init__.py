"""The files of ``configs/paper`` that follow from the paper's tables."""
