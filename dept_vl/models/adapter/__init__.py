"""Trained tensors on disk: our adapter files, starting from one, and the released code's files."""
