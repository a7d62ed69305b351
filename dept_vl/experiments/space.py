"""What a sweep tries: ordinary settings and a ``sweep`` section, checked before anything runs. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError, SettingProblem, SettingsError
from dept_vl.registry import suggest
from dept_vl.runs.refusals import check_method
from dept_vl.settings.layers import read_settings
from dept_vl.settings.load import overlay_config, setting_names
from dept_vl.settings.marked import with_absolute_paths
from dept_vl.settings.renamed import new_key
from dept_vl.settings.schema import STEPS_OR_EPOCHS, LoopConfig, TrainConfig
from dept_vl.strict import STRICT

_FIXED = ("task", "output_dir", "seed", "loop.precision", "loop.best_metric", "data.dir", "data.rows", "data.protocol")
"""Settings a sweep cannot vary: runs would not be compared by one number on one split, or not fit one process."""

MAX_TRIALS = 100_000

Value = bool | int | float | str | None


@dataclass(frozen=True, config=STRICT)
class Range:
    """Values from `low` to `high`, both included; whole numbers when both are."""

    low: float | int
    high: float | int
    log: bool = False


@dataclass(frozen=True, config=STRICT)
class SweepConfig:
    """The ``sweep`` section of a file.

    Attributes:
        space: Dotted setting -> the list of values to try, or a `Range`.
        sampler: Every combination in order, random ones, or Optuna's TPE.
        trials: How many runs; for a grid at most and by default all of it.
        pruner: What ends a run early by its scores on ``val``.
        seed: Of the sampler. The runs have the ordinary `seed`.
    """

    space: dict[str, list[Value] | Range]
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[int | None, Field(ge=1, le=MAX_TRIALS)] = None
    pruner: Literal["none", "median", "hyperband"] = "none"
    seed: Annotated[int, Field(ge=0)] = 0


_ADAPTER = TypeAdapter(SweepConfig)


@plain_dataclass(frozen=True)
class SweepPlan:
    """A sweep's own settings and those all of its runs share.

    Attributes:
        sweep: Space, sampler and pruner.
        tree: Nested settings of every run.
        overrides: Dotted settings laid over them.
    """

    sweep: SweepConfig
    tree: dict[str, Any]
    overrides: dict[str, Any]

    def config(self, values: Mapping[str, Value], output_dir: Path | None = None) -> TrainConfig:
        """Returns the settings of one run.

        Raises:
            ConfigError: They contradict each other or are out of range.
        """
        folder = {} if output_dir is None else {"output_dir": str(output_dir)}
        return overlay_config(self.tree, {**self.overrides, **values, **folder})

    @property
    def folder(self) -> Path:
        """Where the sweep goes: `output_dir`, or ``runs/<task>-<tuner>-sweep``."""
        base = self.config({})
        return Path(base.output_dir or f"runs/{base.task}-{base.tuner.label}-sweep")

    @property
    def record(self) -> dict[str, Any]:
        """What a resumed sweep must agree in."""
        overrides = {key: value for key, value in self.overrides.items() if key != "output_dir"}
        return with_absolute_paths({"sweep": asdict(self.sweep), "settings": self.tree, "overrides": overrides})

    @property
    def points(self) -> list[dict[str, Value]]:
        """The combinations of a grid, the last setting varying fastest, cut to `trials`."""
        lists = [values for values in self.sweep.space.values() if isinstance(values, list)]
        chosen = itertools.islice(itertools.product(*lists), self.sweep.trials)
        return [dict(zip(self.sweep.space, values, strict=True)) for values in chosen]

    @property
    def samples(self) -> list[dict[str, Value]]:
        """Combinations in which every value, and both ends of every range, occurs."""
        space = self.sweep.space
        ends = {key: values if isinstance(values, list) else [values.low, values.high] for key, values in space.items()}
        longest = max(len(values) for values in ends.values())
        return [{key: values[min(i, len(values) - 1)] for key, values in ends.items()} for i in range(longest)]

    def check_methods(self) -> None:
        """Refuses a sweep with runs whose method cannot be trained on their backbone.

        Raises:
            ConfigError: As `check_method`, of `samples`.
        """
        for values in self.samples:
            check_method(self.config(values))

    @property
    def num_evaluations(self) -> int:
        """How often a run is evaluated on ``val``, for pruner hyperband."""
        return _num_evaluations(self.config({}).loop)

    @property
    def num_trials(self) -> int:
        """How many runs there are in all."""
        return len(self.points) if self.sweep.sampler == "grid" else self.sweep.trials or 0


def _num_evaluations(loop: LoopConfig) -> int:
    """Returns how often a run is evaluated on ``val``.

    Raises:
        ConfigError: That depends on the number of rows.
    """
    for whole, every in zip(*STEPS_OR_EPOCHS, strict=True):
        if getattr(loop, whole) is not None and getattr(loop, every) is not None:
            return math.ceil(getattr(loop, whole) / getattr(loop, every))
    raise ConfigError(
        "sweep.pruner: 'hyperband' counts a run's evaluations; give its length and what is between them alike: "
        "loop.max_steps with loop.eval_every_steps, or loop.epochs with loop.eval_every_epochs"
    )


def load_plan(path: Path, overrides: Mapping[str, Any]) -> SweepPlan:
    """Reads a sweep file; ``sweep.*`` overrides go to its ``sweep`` section, the others to the runs.

    Raises:
        ConfigError: The file has no such section, a key of it is unknown, the space names something that is no
            setting, or a value in it makes no valid run.
    """
    tree = read_settings(path)
    section = tree.pop("sweep", None)
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: has no section 'sweep' with a 'space'; see configs/sweeps/paper.yaml")
    own = {key.removeprefix("sweep."): value for key, value in overrides.items() if key.startswith("sweep.")}
    shared = {key: value for key, value in overrides.items() if not key.startswith("sweep.")}
    sweep = _read_section(section, own, path)
    _check_space(sweep, shared, path)
    overlay_config(tree, shared, where=str(path))
    plan = SweepPlan(sweep, tree, shared)
    for values in plan.samples:
        try:
            plan.config(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: sweep.space: {error}") from None
    if sweep.pruner == "hyperband":
        _num_evaluations(plan.config({}).loop)
    return plan


def _read_section(section: dict[str, Any], given: Mapping[str, Any], path: Path) -> SweepConfig:
    """Checks the section of a file with what the command line gives laid over it."""
    section = {**section, **given}
    space = section.get("space")
    if isinstance(space, dict):
        section = {**section, "space": {key: _numbers(value) for key, value in space.items()}}
    try:
        return _ADAPTER.validate_python(section)
    except ValidationError as error:
        found = {_problem(detail, given) for detail in error.errors(include_url=False)}
        raise SettingsError(list(found), str(path)) from None


def _problem(detail: Mapping[str, Any], given: Mapping[str, Any]) -> SettingProblem:
    place = ".".join(str(part) for part in detail["loc"])
    text = f"{str(detail['msg']).lower()}, got {detail.get('input')!r}"
    if detail["type"] == "unexpected_keyword_argument" and len(detail["loc"]) == 1:
        known = sorted(SweepConfig.__dataclass_fields__)
        text = f"unknown sweep key{suggest(place, known)} (known: {', '.join(known)})"
    is_given = bool(detail["loc"]) and detail["loc"][0] in given
    return SettingProblem(f"sweep.{place}", text, f"sweep.{detail['loc'][0]}" if is_given else None)


def _numbers(value: Any) -> Any:
    """Reads ``5e-4`` as the number it is: YAML 1.1 takes it for a string."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_space(sweep: SweepConfig, overrides: Mapping[str, Any], path: Path) -> None:
    known, given = setting_names(), {new_key(key) for key in overrides}
    if not sweep.space:
        raise ConfigError(f"{path}: sweep.space: names no setting to vary")
    for key, values in sweep.space.items():
        where = f"{path}: sweep.space: {key}"
        name = new_key(key)
        if name not in known and not name.startswith("tuner.parts."):  # those are checked with the runs' settings
            raise ConfigError(f"{where}: not a setting{suggest(key, known)}")
        if name in _FIXED:
            raise ConfigError(f"{where}: cannot be varied in a sweep; set it for all runs")
        if name in given:
            raise ConfigError(f"{where}: varied by the sweep and given on the command line; drop one of them")
        if isinstance(values, list):
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{where}: expected different values, got {values}")
        elif sweep.sampler == "grid":
            raise ConfigError(f"{where}: a grid needs a list of values; ranges are for sampler random or tpe")
        elif values.low >= values.high or (values.log and values.low <= 0):
            raise ConfigError(f"{where}: expected low < high, and low > 0 with log, got {values.low} to {values.high}")
    combinations = math.prod(len(values) for values in sweep.space.values() if isinstance(values, list))
    if sweep.sampler == "grid" and (sweep.trials or combinations) > MAX_TRIALS:
        raise ConfigError(
            f"{path}: sweep.space: has {combinations:,} combinations; set sweep.trials, at most {MAX_TRIALS:,}"
        )
    if sweep.sampler != "grid" and sweep.trials is None:
        raise ConfigError(f"{path}: sweep.trials: sampler {sweep.sampler!r} needs the number of runs")
