"""The recipe that trained the packaged CLIP and T5; maintainers alone run it."""
