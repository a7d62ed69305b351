"""Whether an adapter lies in a folder, and what is said where one is missing. No torch, so that it is said at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dept_vl.errors import CheckpointError

ADAPTER_CONFIG_FILE = "adapter_config.json"
"""Of an adapter of this package, and of one of the released code."""

WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"
RELEASED_WEIGHTS_FILE = "adapter_model.bin"
RELEASED_WEIGHTS_FILES = (WEIGHTS_FILE, RELEASED_WEIGHTS_FILE)
"""The released code writes the second; PEFT, of which it is a copy, the first since 0.7. The first one there counts."""


def require_adapter(folder: Path, names: Sequence[str] = (ADAPTER_CONFIG_FILE, WEIGHTS_FILE)) -> None:
    """Refuses a folder that lacks a file of an adapter.

    Args:
        folder: An adapter's, or a run's.
        names: The files that are needed.

    Raises:
        CheckpointError: One is missing; the first is named.
    """
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no adapter here ({name} is missing)")


def require_released(folder: Path) -> Path:
    """Returns the weights file of a folder that holds an adapter of the released code.

    Raises:
        CheckpointError: The settings or the weights are missing.
    """
    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder}: no released adapter here ({ADAPTER_CONFIG_FILE} is missing)")
    weights = next((folder / name for name in RELEASED_WEIGHTS_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise CheckpointError(
            f"{folder}: {' or '.join(reversed(RELEASED_WEIGHTS_FILES))} is missing; the authors published the weights "
            f"of some tasks only, and the {ADAPTER_CONFIG_FILE} here describes an adapter without holding it"
        )
    return weights
