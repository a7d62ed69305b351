"""What scored runs answered, row by row, and what else their folders say: trained parameters and speed. No torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError
from dept_vl.evaluators import EvaluationInput, Reference
from dept_vl.evaluators.paired import CORRECT
from dept_vl.inference.result_files import files_beside
from dept_vl.inference.results import CONFIDENCE
from dept_vl.models.adapter.presence import WEIGHTS_FILE
from dept_vl.runs.folder import METRICS_FILE
from dept_vl.system.bounded_reading import hash_file, parse_json, read_file
from dept_vl.system.text_files import parse_lines, read_text
from dept_vl.tasks.vqa_answers import normalise_answer

_MAX_HEADER_BYTES = 100 << 20  # safetensors' own limit
_PROJECTION = "visual_projection."
_ENOUGH_PEOPLE = 3


@dataclass(frozen=True)
class RowAnswers:
    """What a run answered.

    Attributes:
        ids: Of the rows, in their order.
        predictions: The answers.
        references: What people wrote.
        scores: Name -> a value a row.
        asked: Of each row what else its line says: image and columns.
        confidences: Probability that the model gave to each answer, 0 to 1; None where that was not recorded.
    """

    ids: tuple[Any, ...]
    predictions: tuple[str, ...]
    references: tuple[Reference, ...]
    scores: Mapping[str, tuple[float, ...]]
    asked: tuple[Mapping[str, Any], ...] = ()
    confidences: tuple[float, ...] | None = None

    def each(self, metric: str) -> tuple[float, ...] | None:
        """Returns what each row scores: by the metric, else right or wrong; None where rows have no such score."""
        return self.scores.get(metric, self.scores.get(CORRECT))

    def inputs(self) -> EvaluationInput:
        """Returns predictions and references as evaluators take them."""
        return EvaluationInput(self.predictions, self.references)


def read_answers(results: Path) -> RowAnswers:
    """Returns the answers that a file of scores is of.

    Args:
        results: The file of scores; predictions and answers lie beside it.

    Raises:
        CheckpointError: They are not there, are damaged, or are those of another evaluation.
    """
    files = files_beside(results)
    again = "score the run again with `dept-vl eval`"
    try:
        recorded = parse_json(read_file(results)).get("sha256", {}).get("predictions")
        if recorded is not None and hash_file(files["predictions"]) != recorded:
            raise CheckpointError(f"{files['predictions']}: not the answers that {results.name} is of; {again}")
        said = [(*record.items(),) for record in parse_json(read_file(files["predictions"]))]
        lines = [record for _, record in parse_lines(read_text(files["answers"]), files["answers"])]
        keys = [name for name, _ in said[0]] if said else ["", ""]
        if [tuple((key, line[key]) for key in keys) for line in lines] != said:
            raise CheckpointError(f"{files['answers']}: not the answers of {files['predictions'].name}; {again}")
        return _rows(lines, *keys)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{results}: its answers cannot be read ({reason}); {again}") from None


def _rows(lines: list[dict[str, Any]], id_key: str, text_key: str) -> RowAnswers:
    scores = lines[0]["scores"] if lines else {}
    known = {id_key, text_key, "references", "scores", CONFIDENCE}
    sure = [line.get(CONFIDENCE) for line in lines]
    return RowAnswers(
        tuple(line[id_key] for line in lines),
        tuple(str(line[text_key]) for line in lines),
        tuple(Reference([str(text) for text in line["references"]]) for line in lines),
        {name: tuple(_finite(line["scores"][name]) for line in lines) for name in scores},
        tuple({name: value for name, value in line.items() if name not in known} for line in lines),
        tuple(map(_finite, sure)) if sure and all(isinstance(value, float | int) for value in sure) else None,
    )


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"a score is {number}")
    return number


def count_trained(run_dir: Path, *, with_projection: bool = True) -> int | None:
    """Returns how many parameters a run has trained, by the header of its adapter; None without an adapter.

    Args:
        run_dir: Its folder.
        with_projection: Whether the visual projection's count.

    Raises:
        CheckpointError: The adapter's file is damaged.
    """
    path = run_dir / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(min(size, _MAX_HEADER_BYTES)))
        return sum(
            math.prod(tensor["shape"])
            for name, tensor in header.items()
            if name != "__metadata__" and (with_projection or not name.startswith(_PROJECTION))
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an adapter's file ({error})") from None


def training_speed(run_dir: Path) -> float | None:
    """Returns examples a second at the end of a run's training, by its ``metrics.jsonl``; None where none is known."""
    speeds = [record["samples_per_s"] for record in read_metrics(run_dir) if "samples_per_s" in record]
    return float(speeds[-1]) if speeds else None


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's ``metrics.jsonl``; none where there is no such file."""
    path = run_dir / METRICS_FILE
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:  # the line a kill cut short
            continue
        records += [record] if isinstance(record, dict) else []
    return records


def is_right(answer: str, references: Sequence[str]) -> bool | None:
    """Returns whether three people, or as many as agree at all, gave an answer; None where no one was asked.

    Answers are compared as VQA accuracy normalises them.
    """
    if not references:
        return None
    counts = Counter(map(normalise_answer, references))
    return counts[normalise_answer(answer)] >= min(_ENOUGH_PEOPLE, max(counts.values()))


def answering_speed(results: Path) -> float | None:
    """Returns answers a second, by a file of scores; None where it does not say."""
    content = parse_json(read_file(results))
    seconds = content.get("answer_seconds")
    return content["num_scored"] / seconds if seconds else None
