"""Paths that a run has recorded and that lead nowhere: relative ones of earlier versions, and what has moved since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.settings.load import flat_settings, nested_settings
from dept_vl.settings.marked import path_settings
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.renamed import new_key
from dept_vl.settings.schema import TrainConfig


def check_recorded_paths(
    config: TrainConfig,
    folder: Path,
    given: Mapping[str, Any],
    *,
    is_read: Callable[[str], bool],
    how_to_give: Callable[[str], str],
) -> None:
    """Refuses recorded paths that a caller needs where nothing is there, before it says what it misses in them.

    Args:
        config: Recorded settings, those given laid over them.
        folder: The run's, or that of the file they are recorded in.
        given: Dotted settings that are not the recorded ones.
        is_read: Whether the caller reads a setting, by its dotted key: paths that it does not read may lead anywhere.
        how_to_give: From a dotted key to how another value is given, such as ``--data-dir PATH``.

    Raises:
        ConfigError: One leads nowhere; the message says what a relative one is relative to and how to give it.
    """
    recorded, own = flat_settings(nested_settings(config)), {new_key(key) for key in given}
    started_in = _started_in(config, folder)
    for key, path in path_settings().items():
        value = recorded.get(key)
        if not isinstance(value, str) or value in path.words or key in own:
            continue
        if not (is_read(key) and _is_needed(config, key)):
            continue
        bare = Path(value.removeprefix(path.prefix))
        then = started_in / bare if started_in is not None and not bare.is_absolute() else None
        is_there_then = then is not None and then.exists()
        if bare.exists() or not (path.is_local(value) or is_there_then):
            continue
        how, perhaps = how_to_give(key), f", perhaps {then}" if is_there_then else ""
        if bare.is_absolute():
            raise ConfigError(f"{key}: {folder} recorded {value!r}, and nothing is there; if it moved, give {how}")
        raise ConfigError(
            f"{key}: {folder} recorded the relative path {value!r}, which is seen from the folder it was trained in; "
            f"from here there is no such path. Give {how}{perhaps}"
        )


def _is_needed(config: TrainConfig, key: str) -> bool:
    """Returns whether a run is used with a path: not with its own, nor with what its features are not made from."""
    if key in ("output_dir", "init.from"):
        return False
    if key == "data.image_dir":
        is_prepared = config.data.rows is not None and config.uses_images
        return is_prepared or config.data.visual_features == "encode" or _is_read_by_the_backbone(config)
    if key == "data.feature_dir":
        return config.data.visual_features != "encode"
    return config.uses_images or not key.startswith(("model.image_encoder.", "model.frozen_projection"))


def _is_read_by_the_backbone(config: TrainConfig) -> bool:
    try:
        return config.uses_images and has_own_image_encoder(config)
    except ConfigError:  # the backbone moved too, which is said of its own path
        return False


def _started_in(config: TrainConfig, folder: Path) -> Path | None:
    """Returns the folder that a run was started in, if its own folder still lies where its settings say."""
    place, absolute = config.run_dir.parts, folder.resolve().parts
    if config.run_dir.is_absolute() or absolute[-len(place) :] != place:
        return None
    return Path(*absolute[: -len(place)])
