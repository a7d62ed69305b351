"""Whether an adapter lies in a folder, and what is said where one is missing. No torch, so that it is said at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dept_vl.errors import CheckpointError

ADAPTER_CONFIG_FILE = "adapter_config.json"
"""Of an adapter of this package, and of one of the released code."""

WEIGHTS_FILE = "adapter_model.safetensors"
RELEASED_WEIGHTS_FILE = "adapter_model.bin"


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


def require_released(folder: Path) -> None:
    """Refuses a folder that lacks a file of an adapter of the released code.

    Raises:
        CheckpointError: The settings or the weights are missing.
    """
    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder}: no released adapter here ({ADAPTER_CONFIG_FILE} is missing)")
    if not (folder / RELEASED_WEIGHTS_FILE).is_file():
        raise CheckpointError(
            f"{folder}: {RELEASED_WEIGHTS_FILE} is missing; the authors published the weights of some tasks only, and "
            f"the {ADAPTER_CONFIG_FILE} here describes an adapter without holding it"
        )
