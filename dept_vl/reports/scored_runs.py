"""Scored runs as their folders hold them, with the settings they were made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.experiments.scores import GENERATE, RESULTS_FILE
from dept_vl.runs.folder import read_run_config
from dept_vl.settings.load import config_from_tree
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.tasks import get_task


@dataclass(frozen=True)
class ScoredRun:
    """A run with its scores on ``test``; one that was trained on several tasks together is one of these for each.

    Attributes:
        path: The file they were read from.
        config: Its settings, as the task that was scored has them.
        decode: How its answers were made.
        scores: By metric, in the scorers' own scale.
        rows: How many rows were scored; None where no file says.
        is_complete: Whether every split was the data set's own; None where the file does not say.
        rows_sha256: Of the rows that were scored; None as before.
        weights_sha256: Of the backbone's weights; None as before.
        share: Trained over all parameters, 0 to 1; None as before.
        together: The tasks that it was trained on, where they are several.
        frozen_projection_sha256: Of the projection that it found trained; None for one of its own.
    """

    path: Path
    config: TrainConfig
    decode: str
    scores: Mapping[str, float]
    rows: int | None = None
    is_complete: bool | None = None
    rows_sha256: str | None = None
    weights_sha256: str | None = None
    share: float | None = None
    together: tuple[str, ...] = ()
    frozen_projection_sha256: str | None = None

    @property
    def task(self) -> str:
        """The task that was scored."""
        return self.config.task


def read_scored_runs(folder: Path) -> list[ScoredRun]:
    """Returns the run of a folder, those of several seeds, or those of a transfer's chosen source.

    Several seeds and a transfer are summed up in a file of their own; what a run scored since then is read from the
    run.

    Raises:
        CheckpointError: There are no scores, or they cannot be read.
        ConfigError: Their settings are invalid.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; name the folder of a scored run")
    readers = {"seeds.json": _of_seeds, "transfer.json": _of_transfer, RESULTS_FILE: _of_run}
    for name, read in readers.items():
        path = folder / name
        if path.is_file():
            return _checked(path, read)
    raise CheckpointError(f"{folder}: holds no test scores; make them with `dept-vl eval --checkpoint {folder}`")


_Reader = Callable[[Path, dict[str, Any]], list[ScoredRun]]


def _checked(path: Path, read: _Reader) -> list[ScoredRun]:
    try:
        return read(path, parse_json(read_file(path)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError | ConfigError):
            raise
        raise CheckpointError(f"{path}: cannot read scores: {error!r}; score the run again") from None


def _of_run(path: Path, content: dict[str, Any]) -> list[ScoredRun]:
    if isinstance(each := content.get("results"), dict):  # of several tasks: a file each
        return [run for name in each.values() for run in _checked(path.with_name(Path(name).name), _of_run)]
    scores = {name: _finite(value) for name, value in content["metrics"].items()}
    given = content.get("config")
    config = read_run_config(path.parent) if given is None else config_from_tree(given, where=str(path))
    together = _together(config)
    if together:
        config = _for_task(config, content["task"], content.get("protocol"))
    data, backbone, sizes = (content.get(name, {}) for name in ("data", "backbone", "parameters"))  # of later versions
    return [
        ScoredRun(
            path, config, content.get("decode", GENERATE), scores, content.get("num_scored"), data.get("complete"),
            data.get("rows_sha256"), backbone.get("weights_sha256"), sizes["trained"] / sizes["all"] if sizes else None,
            together, content.get("frozen_projection_sha256"),
        )
    ]  # fmt: skip


def _together(config: TrainConfig) -> tuple[str, ...]:
    """Returns the tasks of a run of several; none of a run of one."""
    names = tuple(config.task.split("+")) if config.declaration is None else ()
    return names if len(names) > 1 else ()


def _for_task(config: TrainConfig, task: str, protocol: Any) -> TrainConfig:
    """Returns the settings of a run of several tasks as one of them has them."""
    return replace(config, task=get_task(task).name, data=replace(config.data, protocol=protocol))


def _of_seeds(path: Path, content: dict[str, Any]) -> list[ScoredRun]:
    config = config_from_tree(content["config"], where=str(path))
    return _of_several(path, path.parent, config, content["metrics"], content["runs"])


def _of_transfer(path: Path, content: dict[str, Any]) -> list[ScoredRun]:
    source = get_task(content["best_source"]).name
    config = config_from_tree(content["config"], where=str(path))
    config = replace(config, init=replace(config.init, source=source))
    chosen = content["starts"][source]
    return _of_several(path, path.parent / f"from-{source}", config, chosen["test"], chosen["runs"])


def _of_several(
    path: Path, folder: Path, config: TrainConfig, spreads: dict[str, Any], runs: list[dict[str, Any]]
) -> list[ScoredRun]:
    """Returns the runs that a file sums up: each from its own file of scores, or from there where that is gone."""
    found = []
    for number, run in enumerate(runs):
        own = folder / f"seed-{run['seed']:d}" / RESULTS_FILE if "seed" in run else path
        if own != path and own.is_file():
            found += _checked(own, _of_run)
            continue
        scores = {name: _finite(spread["values"][number]) for name, spread in spreads.items()}
        decode, together = run.get("decode", GENERATE), _together(config)
        found += [
            ScoredRun(path, _for_task(config, task, config.data.protocol), decode, own_scores, together=together)
            for task in together
            if (own_scores := {n.partition("/")[2]: v for n, v in scores.items() if n.startswith(f"{task}/")})
        ]
        found += [] if together else [ScoredRun(path, config, decode, scores)]
    return found


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"a score is {number}")
    return number
