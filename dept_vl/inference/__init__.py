"""Answers of a trained run: on a split, scored, verified, or about a user's own inputs."""
