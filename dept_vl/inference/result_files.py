"""Where an evaluation's files go, so that predictions, answers and scores that lie together belong together."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dept_vl.data.manifest import hash_rows
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.language.stored import hub_origin
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.settings.load import config_from_tree, flat_settings
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import parse_json, read_file

logger = logging.getLogger(__name__)

PLACES = (
    "data.dir", "data.rows", "data.image_dir", "data.feature_dir", "model.backbone", "model.image_encoder.model",
    "model.frozen_projection",
)  # fmt: skip
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


def folder_of_results(run_dir: Path) -> Path:
    """Returns where the results of a run go: its own folder, or ``runs/<user>--<name>`` for one in the hub's cache."""
    origin = hub_origin(run_dir)
    return run_dir if origin is None else Path("runs", origin[0].replace("/", "--"))


@dataclass(frozen=True)
class Destination:
    """Where an evaluation goes.

    Attributes:
        files: What is written, ``scores``, ``predictions`` and ``answers`` -> where.
        moves: Files that lie there, of another evaluation -> where they are moved first.
    """

    files: dict[str, Path]
    moves: dict[Path, Path] = field(default_factory=dict)

    def clear(self) -> None:
        """Moves away what is of another evaluation; scores that are replaced go before their predictions do."""
        for path, target in self.moves.items():
            if path.is_file():
                path.replace(target)
        self.files["scores"].unlink(missing_ok=True)


def results_name(split: str, task: str | None) -> str:
    """Returns what the results of a split are called; of one task of a run of several with that task's name."""
    return split if task is None else f"{split}-{task}"


def rows_sha256_of(config: TrainConfig, data_dir: Path, split: str) -> str:
    """Returns the sha256 of a split's rows, in hexadecimal; of several tasks one of all theirs.

    Raises:
        DataError: As `hash_rows`.
    """
    each = [hash_rows(data_dir, one.resolve_task(), split) for one in config.each_task()]
    return each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()


def choose_destination(
    config: TrainConfig, run_dir: Path, split: str, rows_sha256: str, task: str | None = None
) -> Destination:
    """Returns where an evaluation in its run's folder goes, so that none of other settings or data is replaced.

    ``results-<split>.json`` is that of the run's own settings and data, or of others while there is none of its own.
    Others go to ``results-<split>-<8 digits>.json``, by the hash of settings and rows; those that lie in the place of
    the run's own are moved there.

    Args:
        config: The settings.
        run_dir: The run's folder, or an adapter's, which has no settings of its own.
        split: The split.
        rows_sha256: Of its rows.
        task: Which one, of a run of several; None for the task of a run of one, or for all.
    """
    name = results_name(split, task)
    there, key = _recorded_key(run_dir, name, rows_sha256), _key(settings_sha256(config), rows_sha256)
    files = files_of(run_dir, name)
    if there in (None, key):
        return Destination(files)
    if _is_of_run(config, run_dir, split, rows_sha256, task):
        earlier = files_of(run_dir, f"{name}-{there}")
        logger.warning("%s is of other settings or data; it is moved to %s", files["scores"], earlier["scores"].name)
        return Destination(files, {files[name]: path for name, path in earlier.items()})
    others = files_of(run_dir, f"{name}-{key}")
    logger.warning(
        "other settings or data than those of %s, which stays as it is; see %s", files["scores"], others["scores"].name
    )
    return Destination(others)


def _key(settings: str, rows_sha256: str) -> str:
    return hashlib.sha256(f"{settings} {rows_sha256}".encode()).hexdigest()[:8]


def _recorded_key(run_dir: Path, name: str, rows_sha256: str) -> str | None:
    """Returns the key of the scores that lie in a run's folder; None where there are none that can be read.

    Scores of format 1 do not say of which rows they are: of `rows_sha256`, as far as is known.
    """
    try:
        content = read_scores(files_of(run_dir, name)["scores"])
        settings = content.get("settings_sha256") or settings_sha256(config_from_tree(content["config"]))
        return _key(settings, content.get("data", {}).get("rows_sha256", rows_sha256))
    except (DataError, ConfigError, LookupError, TypeError, AttributeError):
        return None


def _is_of_run(config: TrainConfig, run_dir: Path, split: str, rows_sha256: str, task: str | None) -> bool:
    """Returns whether settings and data are the run's own, as far as that can be told: its data may have moved."""
    if not (run_dir / RUN_CONFIG_FILE).is_file():
        return False
    own = read_run_config(run_dir)
    if settings_sha256(config) != settings_sha256(own):
        return False
    if own.data.dir == config.data.dir or own.is_demo_data:
        return own.data.dir == config.data.dir
    try:
        own_task = own if task is None else own.for_task(task)
        return rows_sha256 == rows_sha256_of(own_task, Path(own.data.dir or ""), split)
    except DataError:
        return True


def settings_sha256(config: TrainConfig) -> str:
    """Returns one sha256 of the settings that runs of one cell of a table share, in hexadecimal.

    Left out are the seed, places, and what changes no number; also settings that are null, so that a later version's
    new ones change nothing.
    """
    flat = flat_settings(asdict(config))
    kept = {key: value for key, value in flat.items() if key not in _NO_NUMBER and value is not None}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_scores(path: Path) -> Any:
    """Returns the content of a results file as it is.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return parse_json(read_file(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the results: {getattr(error, 'strerror', None) or error}") from None
