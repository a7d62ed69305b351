"""Benchmarks of this package beside what a user would otherwise run. Importing this imports no torch."""
