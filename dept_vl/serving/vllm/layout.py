"""What an export's folder holds. No torch."""

from __future__ import annotations

FORMAT = 1
"""Of an export's folder; a reader of another one refuses it."""

SETTINGS_FILE, TENSORS_FILE, CLIENT_FILE, README_FILE = (
    "export.json",
    "embeddings.safetensors",
    "client.py",
    "README.md",
)

EXPORT_FILES = (SETTINGS_FILE, TENSORS_FILE)
"""Those that a proxy reads, beside the run's settings."""

KEYS = (
    "backbone", "chat_template", "dtype", "eos_token_id", "frame", "is_last_aligned", "max_new_tokens", "method",
    "notes", "text", "word_embeddings",
)  # fmt: skip
"""What ``export.json`` must say for answers."""
