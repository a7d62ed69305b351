"""Relative paths that runs of earlier versions recorded; runs record paths from the root on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.cli.aliases import flag_of
from dept_vl.cli.reads import reads
from dept_vl.errors import ConfigError

if TYPE_CHECKING:
    from dept_vl.settings.schema import TrainConfig

_NOT_NEEDED = ("output_dir", "init.from")
"""Paths that a run is used without: its own, and where its training started."""


def check_recorded_paths(config: TrainConfig, folder: Path, given: Mapping[str, Any], command: str) -> None:
    """Refuses relative paths that runs of earlier versions recorded, where they lead nowhere from this folder.

    Args:
        config: Recorded settings, those given laid over them.
        folder: The run's, or that of the file they are recorded in.
        given: Dotted settings that are not the recorded ones.
        command: Who asks: paths that it does not read may lead anywhere.

    Raises:
        ConfigError: One does; the message says what it is relative to and which flag gives it.
    """
    from dept_vl.settings.load import nested_settings
    from dept_vl.settings.marked import path_settings
    from dept_vl.settings.renamed import new_key

    tree, own = nested_settings(config), {new_key(key) for key in given}
    started_in = _started_in(config, folder)
    for key, path in path_settings().items():
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        if key in own or key in _NOT_NEEDED or value is None or value in path.words or not reads(command, key):
            continue
        then = started_in / value if started_in is not None and (started_in / value).is_dir() else None
        if Path(value).exists() or not (path.is_relative(value) or then is not None):
            continue
        perhaps = f", perhaps {then}" if then is not None else ""
        raise ConfigError(
            f"{key}: {folder} recorded the relative path {value!r}, which is seen from the folder it was trained in; "
            f"from here there is no such path. Give {flag_of(key)} PATH{perhaps}"
        )


def _started_in(config: TrainConfig, folder: Path) -> Path | None:
    """Returns the folder that a run was started in, if its own folder still lies where its settings say."""
    place, absolute = config.run_dir.parts, folder.resolve().parts
    if config.run_dir.is_absolute() or absolute[-len(place) :] != place:
        return None
    return Path(*absolute[: -len(place)])
