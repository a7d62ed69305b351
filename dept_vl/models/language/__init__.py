"""Frozen language models: loading, what every family offers, and the families."""
