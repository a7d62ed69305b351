"""What several seeds or a transfer consist of, from names and files to checked settings. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.experiments.folder import settings_tree
from dept_vl.models.adapter.presence import WEIGHTS_FILE
from dept_vl.registry import suggest
from dept_vl.settings.declared import find_task
from dept_vl.settings.demo import choose_settings
from dept_vl.settings.schema import TrainConfig

_TARGETS_OWN = ("output_dir", "data.few_shot", "data.few_shot_rule", "init.parts")
"""Overrides that say something about the target alone."""


def plan_transfer(
    target: str,
    sources: Sequence[str],
    path: Path | None,
    overrides: Mapping[str, Any],
    *,
    source_config: Path | None = None,
    source_runs: Sequence[str] = (),
) -> tuple[TrainConfig, dict[str, TrainConfig | Path]]:
    """Returns the target's settings, and of every source the settings to train it with or the run to use.

    Args:
        target: A task's name, short or full, or the file that declares it.
        sources: As `target`.
        path: The target's settings; None for the defaults.
        overrides: Dotted settings of target and sources; few-shot, what is taken and where to are the target's alone.
        source_config: The sources' settings; None for the target's file, without few-shot.
        source_runs: ``task=RUN``, for sources that are trained already.

    Raises:
        ConfigError: A task is unknown or twice a source, a run is given for no source, or settings are invalid.
    """
    given = {find_task(name).name: name for name in sources}
    if len(given) != len(sources):
        raise ConfigError(f"--sources: a source is given twice: {', '.join(sources)}")
    runs = _parse_runs(source_runs, list(given))
    folder = f"runs/{find_task(target).name}-transfer"
    config = choose_settings(path, {"output_dir": folder, **overrides, "task": target}, is_own_data=True)
    shared = {key: value for key, value in overrides.items() if key not in _TARGETS_OWN}
    if source_config is None:
        shared["data.few_shot"] = None
    planned: dict[str, TrainConfig | Path] = {}
    for name, task in given.items():
        own = {**shared, "task": task}
        planned[name] = runs.get(name) or choose_settings(source_config or path, own, is_own_data=True)
    return config, planned


def check_transfer(target: TrainConfig, sources: Mapping[str, TrainConfig | Path]) -> None:
    """Refuses sources that are none.

    Raises:
        ConfigError: There is none, one is the target or has data elsewhere, or the target starts from a run of its own.
        CheckpointError: A source run has no adapter.
    """
    if target.init.source is not None:
        raise ConfigError("init.from: has no effect in a transfer; name runs with --source-runs TASK=RUN")
    if target.data.rows is not None:
        raise ConfigError(
            "data.rows: all tasks of a transfer are read from one folder; prepare each with `dept-vl prepare --rows` "
            "and give that folder with --data-dir"
        )
    if not sources:
        raise ConfigError("--sources: names no source task")
    if target.task in sources:
        raise ConfigError(f"--sources: {target.task!r} is the target itself")
    for name, given in sources.items():
        if isinstance(given, TrainConfig) and given.data.dir is not None and not _is_one_folder(given, target):
            raise ConfigError(
                f"--sources {name}: data.dir is {given.data.dir}, the target's {target.data.dir}; all tasks are read "
                "from one folder: prepare them there, and give it with --data-dir"
            )
        if isinstance(given, Path) and not (given / WEIGHTS_FILE).is_file():
            raise CheckpointError(
                f"--source-runs {name}={given}: no adapter there ({WEIGHTS_FILE} is missing); leave the run out to "
                "train it here"
            )


def _is_one_folder(source: TrainConfig, target: TrainConfig) -> bool:
    theirs, ours = (None if one.data.dir is None else Path(one.data.dir).resolve() for one in (source, target))
    return theirs == ours


def transfer_record(target: TrainConfig, sources: Mapping[str, TrainConfig | Path]) -> dict[str, Any]:
    """Returns what a resumed transfer must agree in."""
    given = {
        name: str(one.absolute()) if isinstance(one, Path) else settings_tree(one) for name, one in sources.items()
    }
    return {**settings_tree(target), "seed": 0, "sources": given}


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuses seeds that are not seeds, or twice the same.

    Raises:
        ConfigError: As said.
    """
    if not seeds or any(seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds: expected different numbers from 0 on, such as 0,1,2, got {list(seeds)}")


def seeds_record(config: TrainConfig) -> dict[str, Any]:
    """Returns what several seeds that are gone on with must agree in."""
    return {**settings_tree(config), "seed": 0}


def _parse_runs(source_runs: Sequence[str], sources: Sequence[str]) -> dict[str, Path]:
    runs = {}
    for text in source_runs:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise ConfigError(f"--source-runs: expected TASK=RUN, got {text!r}")
        name = find_task(name).name
        if name not in sources:
            raise ConfigError(
                f"--source-runs: {name!r} is not among --sources {','.join(sources)}{suggest(name, sources)}"
            )
        runs[name] = Path(os.path.expanduser(folder))
    return runs
