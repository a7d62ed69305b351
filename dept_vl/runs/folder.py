"""The folder of a run: what it was asked to do, with what, and what it measured."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.vision.encoders import registered_encoders
from dept_vl.settings.load import absolute_config, config_from_tree, dump_config, flat_settings, nested_settings
from dept_vl.settings.marked import changes_no_number, path_setting, with_real_paths
from dept_vl.settings.schema import TrainConfig
from dept_vl.settings.yaml_files import read_yaml
from dept_vl.strict import map_paths
from dept_vl.system.atomic import atomic_folder, remove_folder, remove_leftovers, write_json, write_text
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.tasks.base import AnswerForm

RUN_CONFIG_FILE = "config.yaml"
RECORD_FILE = "run.json"
CHECKPOINTS = "checkpoints"
METRICS_FILE = "metrics.jsonl"
FEW_SHOT_FILE = "few_shot.json"
SUMMARY_FILE = "training.json"
"""Written when a run has ended by itself: its last step, its best value on ``val`` and where that was."""

_EXPERIMENTS = {
    "seeds": ("several seeds", "dept-vl train --seeds N,... --resume"),
    "sweep": ("a sweep", "dept-vl sweep --resume"),
    "transfer": ("a transfer", "dept-vl transfer --resume"),
}
"""Several runs in one folder, stamped with ``<name>.yaml`` -> what they are, and the command that goes on with them."""

_PACKAGES = ("accelerate", "datasets", "dept-vl", "numpy", "safetensors", "torch", "transformers")
"""Recorded beside those that image encoders are computed with."""


def open_run_folder(
    config: TrainConfig, *, resume: bool, overwrite: bool, record: Mapping[str, Any] | None = None
) -> Path:
    """Returns the run folder, made and stamped, or the existing one to go on in.

    Args:
        config: The resolved settings, written as ``config.yaml``.
        resume: Go on in a folder that holds the same settings.
        overwrite: Remove an earlier run's folder first.
        record: What else ``run.json`` says of a new run, such as the adapter it starts from.

    Raises:
        ConfigError: The folder is not empty and neither was asked for; it is not a run's folder; or its settings
            differ from `config` (each difference is named).
    """
    folder = config.run_dir
    check_run_folder(folder, resume=resume, overwrite=overwrite)
    if resume and (folder / RUN_CONFIG_FILE).is_file():
        _take_up(folder, config)
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        remove_folder(folder)
    remove_leftovers(folder.parent, folder)
    try:
        with atomic_folder(folder) as building:
            write_json(building / RECORD_FILE, {**describe_run(), **(record or {})})
            write_text(building / RUN_CONFIG_FILE, dump_config(absolute_config(config)))
    except OSError as error:
        raise ConfigError(f"output_dir: cannot write to {folder}: {error.strerror or error}") from None
    return folder


def check_run_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuses a folder that a run can neither be started nor gone on with in.

    Raises:
        ConfigError: It is a file; or not empty and neither was asked for, or not a run's.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; choose a folder")
    if not (folder.is_dir() and any(folder.iterdir())):
        return
    if not (folder / RUN_CONFIG_FILE).is_file():
        raise ConfigError(f"output_dir: {folder} is not empty and {describe_other(folder)}")
    if not resume and not overwrite:
        raise ConfigError(
            f"output_dir: {folder} is not empty; add --resume to go on with the run in it, "
            "--overwrite to replace that run, or choose another --output-dir (in Python resume=True, overwrite=True, "
            "output_dir)"
        )


def describe_other(folder: Path, noun: str = "run") -> str:
    """Returns what a folder is that holds something else than was looked for, and what to do."""
    held = _experiment_in(folder)
    if held is not None:
        return f"holds {held[0]}, which `{held[1]}` goes on with; choose another --output-dir"
    if (folder / RUN_CONFIG_FILE).is_file():
        return f"holds a run and no {noun}; choose another --output-dir"
    return f"holds no {noun}; choose another --output-dir"


def refuse_several(folder: Path, flag: str) -> None:
    """Refuses a folder of several runs where one run is wanted.

    Args:
        folder: Any folder.
        flag: What names the run.

    Raises:
        CheckpointError: It holds seeds, a sweep or a transfer; runs of it are named.
    """
    held = _experiment_in(folder)
    if held is not None:
        raise CheckpointError(f"{folder}: holds {held[0]}; name one run of it with {flag}{_runs_in(folder)}")


def _experiment_in(folder: Path) -> tuple[str, str] | None:
    """Returns what several runs lie in a folder, and what goes on with them; None for another folder."""
    return next((held for name, held in _EXPERIMENTS.items() if (folder / f"{name}.yaml").is_file()), None)


def check_resumable(folder: Path, config: TrainConfig) -> None:
    """Refuses to go on with a run under other settings than it was made with.

    Settings that are marked `MayDiffer` change no number and may be others.

    Raises:
        ConfigError: They differ; each difference is named.
    """
    refuse_differences(folder, nested_settings(read_run_config(folder)), nested_settings(config))


def refuse_differences(folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on in a folder with other settings than it was made with.

    Args:
        folder: A run's or an experiment's.
        earlier: Nested settings that it has recorded.
        now: Those asked for.

    Raises:
        ConfigError: They differ in more than what may differ; each difference is named.
    """
    found = differences(earlier, now)
    if not found:
        return
    lines = [f"{key}: the run has {_shown(key, before)}, asked for {after!r}" for key, before, after in found]
    if any(key.endswith("loop.max_steps") for key, *_ in found):
        lines.append(
            "(another number of steps gives every step another learning rate, so it is another run: start one from "
            f"this one's result with --init-from {folder} and another --output-dir)"
        )
    raise ConfigError(f"cannot resume {folder} with other settings than it was started with:\n  " + "\n  ".join(lines))


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns key, value then and value now of what two runs that are one may not differ in, of nested settings.

    Where the run lies is not a setting, and a path is the same however it is written.
    """
    recorded, asked = flat_settings(earlier), flat_settings(now)
    before, after = with_real_paths(recorded), with_real_paths(asked)
    return [
        (key, recorded.get(key), asked.get(key))
        for key in sorted(before.keys() | after.keys())
        if not _are_same(key, before.get(key), after.get(key)) and key != "output_dir" and not changes_no_number(key)
    ]


def _are_same(key: str, before: Any, after: Any) -> bool:
    """Returns whether two values are equal, or spell one path, be it that of something that is gone."""
    if before == after or path_setting(key) is None:
        return bool(before == after)
    if key.endswith("model.frozen_projection") and before is not None and after is not None:
        return True  # wherever it lies; whether it is the same one its weights say (`dept_vl.runs.sources`)
    return bool(map_paths(before, os.path.realpath) == map_paths(after, os.path.realpath))


def _shown(key: str, before: Any) -> str:
    """Returns a recorded value for a message; of a relative path also what it is relative to."""
    path = path_setting(key)
    if path is not None and isinstance(before, str) and path.is_relative(before):
        return f"{before!r} (seen from the folder it was started in)"
    return repr(before)


def _take_up(folder: Path, config: TrainConfig) -> None:
    """Checks that a run may go on with `config`, and clears what a killed writer left in its folder."""
    check_resumable(folder, config)
    for place in (folder, folder / CHECKPOINTS):
        remove_leftovers(place)
    earlier, now = (flat_settings(nested_settings(settings)) for settings in (read_run_config(folder), config))
    if any(now[key] != earlier.get(key) for key in now if changes_no_number(key)):
        write_text(folder / RUN_CONFIG_FILE, dump_config(absolute_config(config)))


def read_run_config(folder: Path, named_with: str = "--checkpoint") -> TrainConfig:
    """Returns the settings a run was made with.

    Args:
        folder: The run's.
        named_with: What names a run, for the message.

    Raises:
        CheckpointError: The folder is missing or holds no run.
    """
    path = folder / RUN_CONFIG_FILE
    if not path.is_file():
        refuse_several(folder, named_with)
        raise CheckpointError(
            f"{folder}: no run here ({RUN_CONFIG_FILE} is missing); train one with `dept-vl train`, "
            f"or name its folder with {named_with}"
        )
    return config_from_tree(read_yaml(path), where=str(path))


def _runs_in(folder: Path) -> str:
    """Returns the runs of an experiment for a message: the best one of a sweep that says so, else the first few."""
    try:
        best = parse_json(read_file(folder / "sweep.json"))["best"]["run"]
        return f": the best is {folder / Path(best).name}"
    except (OSError, ValueError, KeyError, TypeError):
        runs = sorted(path.parent for path in folder.rglob(RUN_CONFIG_FILE))
        return f": {', '.join(map(str, runs[:3]))}{', ...' if len(runs) > 3 else ''}" if runs else ""


def describe_run() -> dict[str, Any]:
    """Returns the command line, the package's commit, versions and machine, for results anyone can re-make."""
    encoders = {package for kind in registered_encoders() for package in kind.packages.values()}
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in sorted({*_PACKAGES, *encoders})},
    }


def trim_metrics(folder: Path, last_step: int, *, is_evaluation_due: bool = False) -> None:
    """Drops the lines of ``metrics.jsonl`` that a resumed run will write again.

    Args:
        folder: The run's.
        last_step: Lines after this step go.
        is_evaluation_due: Whether the scores at that step go too.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line a kill cut short
            continue
        is_repeated = is_evaluation_due and record["step"] == last_step and any(k.startswith("val/") for k in record)
        if record["step"] <= last_step and not is_repeated:
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def in_answer_form(config: TrainConfig, *, resume: bool) -> TrainConfig:
    """Returns settings that say how a decoder-only backbone is led to its answers.

    Where they leave it open: as the run that is resumed recorded it in ``run.json``, and a new run as its task's
    protocol has it. A run that recorded none is of before there was a choice, and of the released form.

    Raises:
        CheckpointError: The record of the run that is resumed cannot be read.
    """
    form: AnswerForm | None = config.data.answer_form
    folder = config.run_dir
    if form is None and resume and (folder / RUN_CONFIG_FILE).is_file():
        form = read_record(folder / RECORD_FILE).get("answer_form", "released")
    elif form is None:
        form = config.each_task()[0].resolve_task().answer_form  # under one protocol, all have the same
    return replace(config, data=replace(config.data, answer_form=form))


def check_same_length(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuses to go on with a run whose epochs were another number of steps, in which every rate would be another.

    Args:
        folder: The run's.
        record: What ``run.json`` of a new run would say of it: ``length``, absent where the settings have steps.

    Raises:
        ConfigError: They differ.
        CheckpointError: The record of the run cannot be read.
    """
    if not record or not (folder / RUN_CONFIG_FILE).is_file():
        return
    earlier, now = read_record(folder / RECORD_FILE).get("length", {}), record["length"]
    changed = [f"{key} was {earlier[key]}, is {now[key]}" for key in now if earlier.get(key, now[key]) != now[key]]
    if changed:
        raise ConfigError(
            f"cannot resume {folder}: loop.epochs of its rows are other steps than when it was started "
            f"({', '.join(changed)}); give the rows it had"
        )


def read_record(path: Path) -> dict[str, Any]:
    """Returns what a `RECORD_FILE` holds.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        record = parse_json(read_file(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read ({reason}), and says how the run was begun") from None
    if not isinstance(record, dict):
        raise CheckpointError(f"{path}: expected an object")
    return record


@cache
def _commit() -> str | None:
    """Returns the commit of the checkout this package runs from, ``-dirty`` when changed; None when installed.

    Asked once a process: what changes in the checkout later is not what runs.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
