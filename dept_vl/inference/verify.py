"""Makes the scores in a results file again, from what the file records, and compares."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError, DataError, MismatchError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.inference.result_files import PLACES, read_scores
from dept_vl.inference.results import FORMAT_VERSION, EvaluationResult
from dept_vl.inference.score_file import evaluate_file
from dept_vl.models.adapter.presence import WEIGHTS_FILE
from dept_vl.runs.folder import describe_run
from dept_vl.settings.load import config_from_tree, overlay_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import hash_file
from dept_vl.tasks import get_task

MOVABLE = (*PLACES, "data.eval_batch_size")
"""Settings that say where things lie or how fast they go: they may be others than those the results were made with."""

_TOLERANCE = 1e-9
"""Of scores, relative: sums of floating-point numbers in another order; everything else must be equal."""


@dataclass(frozen=True)
class Record:
    """A results file, read.

    Attributes:
        path: The file.
        content: What it holds.
        config: The run's settings as recorded; None for scores of a predictions file.
    """

    path: Path
    content: dict[str, Any]
    config: dict[str, Any] | None

    def settings(self, overrides: Mapping[str, Any]) -> TrainConfig:
        """Returns the recorded settings with some of the `MOVABLE` ones replaced.

        Raises:
            ConfigError: They are not valid.
        """
        recorded = config_from_tree(self.config or {}, where=str(self.path))
        return overlay_config(asdict(recorded), overrides, where=str(self.path))


def read_record(path: Path) -> Record:
    """Reads a results file.

    Raises:
        DataError: It cannot be read, or lacks what is needed to make it again, as files of earlier versions do.
    """
    content = read_scores(path)
    kinds: dict[str, type] = {"task": str, "metrics": dict, "evaluators": list, "sha256": dict, "made_by": dict}
    if isinstance(content, dict):
        kinds |= {"config": dict, "run": str, "split": str} if "config" in content else {"references": dict}
    lacking = [
        key for key, kind in kinds.items() if not isinstance(content, dict) or not isinstance(content.get(key), kind)
    ]
    if isinstance(content, dict) and content.get("format_version", 1) not in (1, FORMAT_VERSION):
        raise DataError(
            f"{path}: results of format {content['format_version']!r}, this version reads 1 and {FORMAT_VERSION}; "
            "take the version of dept-vl that wrote it"
        )
    if lacking:
        raise DataError(f"{path}: not a results file that can be made again: no {', '.join(lacking)}; score it anew")
    return Record(path, content, content.get("config"))


def verify_run(record: Record, config: TrainConfig, data_dir: Path) -> list[str]:
    """Evaluates the recorded run again; nothing of it is overwritten.

    Args:
        record: From `read_record`.
        config: From `Record.settings`.
        data_dir: Prepared data.

    Returns:
        What differs without touching the result: versions, commit, machine.

    Raises:
        MismatchError: Scores, predictions, data or adapter differ; every difference is named.
        ConfigError, DataError, CheckpointError: It cannot be evaluated.
    """
    content, run_dir = record.content, _find_run(record)
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: the data of {record.path} are not there; say where they lie now with --data-dir")
    with tempfile.TemporaryDirectory(prefix="dept-vl-verify-") as folder:
        result = evaluate_run(
            config, data_dir, run_dir, split=content["split"], metrics=content["evaluators"] or None,
            task=content["task"] if config.is_mix and content["task"] != config.task else None,
            tokenizer=content.get("caption_tokenizer", "ptb"), with_agreement="decode_agreement" in content,
            folder=Path(folder),
        )  # fmt: skip
        return _compare(record, result)


def _find_run(record: Record) -> Path:
    """Returns the folder of the run: where it was or, as a run that was moved brings its results along, beside these.

    Another run may lie where it was by now; the hash of the adapter tells.
    """
    folders = (Path(record.content["run"]), record.path.parent)
    there = [folder for folder in folders if (folder / WEIGHTS_FILE).is_file()]
    same = [f for f in there if hash_file(f / WEIGHTS_FILE) == record.content["sha256"].get("adapter")]
    return next(iter((*same, *there, *folders)))


def verify_file(record: Record, moved: Mapping[str, Path] | None = None) -> list[str]:
    """Scores the recorded predictions file again; see `verify_run`.

    Args:
        record: From `read_record`.
        moved: ``predictions`` or a name of ``Task.reference_files`` -> where that file lies now. One that lies neither
            there nor where it was is looked for beside the results.

    Raises:
        MismatchError, ConfigError, DataError: As `verify_run`.
    """
    content, moved = record.content, moved or {}
    recorded = {"predictions": content.get("predictions"), **content["references"]}
    if not isinstance(recorded["predictions"], str):
        raise DataError(f"{record.path}: does not say which predictions were scored")
    unknown = moved.keys() - recorded.keys()
    if unknown:
        raise ConfigError(f"--{min(unknown)}: is none of the files that were scored ({', '.join(recorded)})")
    files = {name: moved.get(name) or _find(Path(str(path)), record.path.parent) for name, path in recorded.items()}
    with tempfile.TemporaryDirectory(prefix="dept-vl-verify-") as folder:
        result = evaluate_file(
            get_task(content["task"]),
            files.pop("predictions"),
            files,
            metrics=content["evaluators"],
            tokenizer=content.get("caption_tokenizer", "ptb"),
            allow_missing=bool(content.get("allow_missing")),
            output=Path(folder) / "results.json",
        )
        return _compare(record, result)


def _find(path: Path, beside: Path) -> Path:
    """Returns a recorded file, or the one of its name beside the results where it is there alone."""
    other = beside / path.name
    return other if not path.exists() and other.is_file() else path


def _compare(record: Record, result: EvaluationResult) -> list[str]:
    before, now = record.content, read_record(result.files["scores"]).content
    problems = []
    for name in ("task", "split", "protocol", "num_scored", "decode", "decoding", "evaluators", "caption_tokenizer"):
        if before.get(name) != now.get(name):
            problems.append(f"{name}: recorded {before.get(name)!r}, now {now.get(name)!r}")
    hashes, notes = _compare_hashes(before, now)
    problems += hashes
    for name in sorted({*before["metrics"], *now["metrics"]}):
        a, b = before["metrics"].get(name), now["metrics"].get(name)
        if not _is_same_score(a, b):
            problems.append(f"{name}: recorded {a!r}, now {b!r}")
    if problems and notes:
        problems += notes
        notes = []
    ours = describe_run()
    notes += [
        f"{name} was {was}, is {ours['versions'].get(name)}"
        for name, was in dict(before["made_by"].get("versions") or {}).items()
        if was != ours["versions"].get(name)
    ]
    notes += [
        f"{name} was {before['made_by'].get(name)}, is {ours[name]}"
        for name in ("commit", "machine", "python")
        if before["made_by"].get(name) != ours[name]
    ]
    if problems:
        why = f"\n  (beside that, {'; '.join(notes)})" if notes else ""
        raise MismatchError(f"{record.path}: made again, it differs:\n  " + "\n  ".join(problems) + why)
    return notes


def _compare_hashes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Returns what differs, and what may differ without a difference: the data's file where its rows are equal.

    Format 1 has the hash of the data's file alone, which depends on where the images lay when it was prepared.
    """
    problems, notes = [], []
    rows = [data.get("rows_sha256") for content in (before, now) if isinstance(data := content.get("data"), dict)]
    for name in sorted({*before["sha256"], *now["sha256"]}):
        a, b = before["sha256"].get(name), now["sha256"].get(name)
        has_rows = name == "data" and len(rows) == 2 and None not in rows
        if has_rows:
            a, b = rows
        text = f"sha256 of {name}: recorded {a}, now {b}"
        if a != b and name == "data" and not has_rows:
            notes.append(f"{text} (of the file, which names the folder of the images; its rows were not recorded)")
        elif a != b:
            problems.append(text)
    return problems, notes


def _is_same_score(before: object, now: object) -> bool:
    if isinstance(before, int | float) and isinstance(now, int | float):
        return math.isclose(before, now, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (
            math.isnan(before) and math.isnan(now)
        )
    return before == now
