"""Frozen image encoders, and the trainable projection of their features."""
