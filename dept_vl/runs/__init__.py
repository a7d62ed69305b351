"""A run: its parts opened from its settings, what runs of one process share, and its folder on disk."""
