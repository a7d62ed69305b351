"""Training: the loop, its batches, its optimiser, its checkpoints, and what becomes of bad steps."""
