"""Faults made on purpose, and a count of what they lost: ``python -m benchmarks.faults``."""
