"""Whether an adapter lies in a folder, what its settings file holds, and what is said where it is bad. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.system.bounded_reading import parse_json

if TYPE_CHECKING:
    from pydantic import ValidationError

    from dept_vl.models.config import ModelConfig

ADAPTER_CONFIG_FILE = "adapter_config.json"
"""Of an adapter of this package, and of one of the released code."""

WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"
RELEASED_WEIGHTS_FILE = "adapter_model.bin"
RELEASED_WEIGHTS_FILES = (WEIGHTS_FILE, RELEASED_WEIGHTS_FILE)
"""The released code writes the second; PEFT, of which it is a copy, the first since 0.7. The first one there counts."""

MAX_CONFIG_BYTES = 1 << 20


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


@contextmanager
def blamed_on_projection() -> Iterator[None]:
    """Names the setting in what is wrong with the run that ``model.frozen_projection`` names."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        kind = CheckpointError if isinstance(error, CheckpointError) else ConfigError
        raise kind(f"model.frozen_projection: {error}") from None


def projection_source(model: ModelConfig, find_run: Callable[[str], Path]) -> Path:
    """Returns the folder of the run that ``model.frozen_projection`` names, or of the packaged projection.

    Args:
        model: It names one.
        find_run: From a run's name to its folder.

    Raises:
        CheckpointError: There is no such run, or no adapter; it reads text alone, or its own projection is another
            run's; or its kind is not ``model.visual_projection``.
    """
    assert model.frozen_projection is not None
    with blamed_on_projection():
        if model.frozen_projection == DEMO:
            return ASSETS / "projection"
        folder = find_run(model.frozen_projection)
        _check_projection(folder, model.visual_projection)
        return folder


def _check_projection(folder: Path, kind: str) -> None:
    try:
        require_adapter(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; name the run that trained the projection: its folder or hub id") from None
    settings = read_settings(folder)
    visual = settings.get("visual") if isinstance(settings, dict) else None
    if not isinstance(visual, dict):
        raise CheckpointError(f"{folder}: trained no visual projection, as it reads text alone; name another run")
    if visual.get("frozen_projection_sha256") is not None:
        raise CheckpointError(
            f"{folder}: trained no visual projection, its own is frozen too; name the run that did "
            "(model.frozen_projection in its config.yaml)"
        )
    if visual.get("projection") != kind:
        raise CheckpointError(
            f"{folder}: its visual projection is {visual.get('projection')!r}, model.visual_projection is {kind!r}; "
            "give the run's"
        )


def read_settings(folder: Path) -> Any:
    """Returns what an adapter's `ADAPTER_CONFIG_FILE` holds, as it is.

    Raises:
        CheckpointError: It is too large, or no JSON.
    """
    path = folder / ADAPTER_CONFIG_FILE
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path}: larger than {MAX_CONFIG_BYTES:,} bytes, not an adapter's settings")
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None


def describe_invalid(error: ValidationError) -> str:
    """Returns everything that pydantic found wrong with an adapter's settings, in a line."""
    return "; ".join(
        sorted(
            f"{'.'.join(map(str, detail['loc'])) or 'settings'}: {detail['msg']}, got {detail.get('input')!r}"
            for detail in error.errors(include_url=False)
        )
    )
