"""Where an evaluation's files go, so that predictions, answers and scores that lie together belong together."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dept_vl.data.manifest import hash_rows
from dept_vl.errors import DataError
from dept_vl.models.demo import DEMO
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import parse_json, read_file

logger = logging.getLogger(__name__)

PLACES = ("data.dir", "data.image_dir", "data.feature_dir", "model.backbone", "model.image_encoder.model")
"""Settings that say where things lie; what lies there is told by hashes."""

_NO_NUMBER = frozenset(
    {
        *PLACES, "output_dir", "seed", "data.eval_batch_size", "data.num_workers", "loop.log_every_steps",
        "loop.save_every_steps", "loop.keep_checkpoints",
    }
)  # fmt: skip
"""Settings that `settings_sha256` leaves out: places, the seed, and what changes no number."""


def files_of(folder: Path, name: str) -> dict[str, Path]:
    """Returns where an evaluation goes in a folder: ``results-<name>.json`` and what belongs to it."""
    return {
        "predictions": folder / f"predictions-{name}.json",
        "answers": folder / f"answers-{name}.jsonl",
        "scores": folder / f"results-{name}.json",
    }


def files_beside(output: Path) -> dict[str, Path]:
    """Returns where an evaluation goes whose scores are to go to `output`: the rest beside it, under its name."""
    name = output.name.removesuffix(".json")
    if name.startswith("results-"):
        return {**files_of(output.parent, name.removeprefix("results-")), "scores": output}
    return {
        "predictions": output.parent / f"{name}-predictions.json",
        "answers": output.parent / f"{name}-answers.jsonl",
        "scores": output,
    }


def own_name(config: TrainConfig, run_dir: Path, split: str, rows_sha256: str) -> str:
    """Returns what the files of an evaluation in its run's folder are named after.

    That is the split; under other settings or on other data than the run's own the split and eight digits of their
    hash, so that what the run's own gave is never replaced by others.

    Args:
        config: The settings.
        run_dir: The run's folder, or an adapter's, which has no settings of its own.
        split: The split.
        rows_sha256: Of its rows.
    """
    if not (run_dir / RUN_CONFIG_FILE).is_file():
        return split
    own = read_run_config(run_dir)
    settings = settings_sha256(config)
    others = settings != settings_sha256(own)
    if not others and rows_sha256 == _own_rows(own, config, run_dir, split, rows_sha256):
        return split
    name = f"{split}-{hashlib.sha256(f'{settings} {rows_sha256}'.encode()).hexdigest()[:8]}"
    logger.warning(
        "%s: not the %s the run has of its own, so that its %s is left as it is; see %s",
        run_dir, "settings" if others else "data", f"results-{split}.json", f"results-{name}.json",
    )  # fmt: skip
    return name


def _own_rows(own: TrainConfig, config: TrainConfig, run_dir: Path, split: str, rows_sha256: str) -> str:
    """Returns the sha256 of the rows that are the run's own, as far as that can be told; else `rows_sha256`."""
    if own.data.dir == config.data.dir:
        return rows_sha256
    if own.is_demo_data:
        return DEMO
    try:
        return hash_rows(Path(own.data.dir or ""), own.task, split, own.data.protocol)
    except DataError:  # they were moved: what the run was scored on before tells
        scores = files_of(run_dir, split)["scores"]
        recorded = read_scores(scores) if scores.is_file() else None
        data = recorded.get("data") if isinstance(recorded, dict) else None
        return str(data.get("rows_sha256", rows_sha256)) if isinstance(data, dict) else rows_sha256


def settings_sha256(config: TrainConfig) -> str:
    """Returns one sha256 of the settings that runs of one cell of a table share, in hexadecimal.

    Left out are the seed, places, and what changes no number; also settings that are null, so that a later version's
    new ones change nothing.
    """
    flat = {key: value for key, value in _flatten(asdict(config)) if key not in _NO_NUMBER and value is not None}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        yield from _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def read_scores(path: Path) -> Any:
    """Returns the content of a results file as it is.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return parse_json(read_file(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the results: {getattr(error, 'strerror', None) or error}") from None
