"""The files that `dept-vl predict` writes: JSON lines for people, or the official results format. No torch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dept_vl.errors import DataError
from dept_vl.inference.inputs import PredictionInput, image_column
from dept_vl.system.atomic import check_output_file, write_bytes, write_text
from dept_vl.tasks import Task

if TYPE_CHECKING:
    from dept_vl.inference.predict import Prediction

OFFICIAL_SUFFIXES = (".json", ".zip")
"""Of a file in the official results format, and of that file packed as evaluation servers take it."""

_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip archive: the same answers give the same bytes


def is_official(path: Path | None) -> bool:
    """Returns whether a file's name asks for the official results format."""
    return path is not None and path.suffix.lower() in OFFICIAL_SUFFIXES


def check_output(path: Path, task: Task, inputs: Sequence[PredictionInput]) -> None:
    """Refuses an output that could not be written at the end.

    Raises:
        ConfigError: As `check_output_file`.
        DataError: It is to be in the official results format, and an input has no id, or two have the same.
    """
    check_output_file("--output", path)
    if not is_official(path):
        return
    key = task.result_keys[0]
    seen: set[int | str] = set()
    for number, item in enumerate(inputs, start=1):
        where = item.named(number)
        if item.example_id is None:
            given = f", found {item.columns[key]!r}" if key in item.columns else ""
            kind = "a whole number or a text" if task.declaration is not None else "a whole number"
            raise DataError(
                f'{where}: needs "{key}", {kind}{given}, as --output {path.name} is in the official results '
                f"format; add it to the input, or name the output {path.stem}.jsonl for an object a line"
            )
        if item.example_id in seen:
            raise DataError(
                f"{where}: {key} {item.example_id} is there twice; --output {path.name} takes one answer each"
            )
        seen.add(item.example_id)


def write_predictions(path: Path, predictions: Sequence[Prediction], task: Task) -> None:
    """Writes predictions, whole or not at all; the name's suffix says how.

    ``.json``: a list of id and answer, the official results format; ``.zip``: that in an archive. Any other: an object
    a line, with image (of several a list), columns, answers and, where given, references and log-likelihoods.
    """
    if not is_official(path):
        write_text(path, "".join(json.dumps(_record(item), ensure_ascii=False) + "\n" for item in predictions))
        return
    id_key, text_key = task.result_keys
    content = json.dumps([{id_key: item.example_id, text_key: item.answer} for item in predictions])
    if path.suffix.lower() == ".json":
        write_text(path, content)
        return
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        entry = zipfile.ZipInfo(f"{path.stem}.json", _FIRST_DATE)
        packed.writestr(entry, content, zipfile.ZIP_DEFLATED)
    write_bytes(path, archive.getvalue())


def _record(item: Prediction) -> dict[str, object]:
    return {
        **({"image": image_column(item.images)} if item.images else {}),
        "columns": item.columns,
        "answers": item.answers,
        **({"references": list(item.references)} if item.references else {}),
        **({"log_likelihoods": item.log_likelihoods} if item.log_likelihoods is not None else {}),
    }
