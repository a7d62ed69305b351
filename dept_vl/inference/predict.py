"""Answers about images or texts with a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dept_vl.data.collator import Batch, Example, collate
from dept_vl.inference.answer import Answerer
from dept_vl.inference.inputs import PredictionInput, source_texts
from dept_vl.runs.open import OWN_IMAGES, open_run
from dept_vl.runs.session import Session
from dept_vl.runs.visual_input import VisualInput
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import write_text
from dept_vl.system.progress import Meter
from dept_vl.tasks import get_task


@dataclass(frozen=True)
class Prediction:
    """What the model says about one input.

    Attributes:
        image: The image, or None.
        columns: The template's columns.
        answers: The answer by how it was made: ``greedy`` and ``beam N``, or ``label``.
        log_likelihoods: Of every label, in nats, where labels were scored; else None.
    """

    image: Path | None
    columns: dict[str, Any]
    answers: dict[str, str]
    log_likelihoods: dict[str, float] | None = None


def predict_inputs(
    config: TrainConfig,
    run_dir: Path,
    inputs: Sequence[PredictionInput],
    *,
    num_beams: int = 5,
    session: Session | None = None,
) -> list[Prediction]:
    """Returns a prediction for every input; the image encoder runs on the fly.

    Where labels are scored, that is the most likely one; else the greedy answer and that of beam search.

    Args:
        config: The run's settings.
        run_dir: Holds the adapter.
        inputs: Images and columns, which `check_inputs` found right.
        num_beams: Beams of the second prediction.
        session: Frozen models shared with other runs of this process.

    Raises:
        CheckpointError: The adapter was trained on features of another encoder.
        DataError: An image is missing or damaged, or the template cannot read an input's columns.
    """
    texts = source_texts(get_task(config.task).under(config.data.protocol), inputs)
    parts = open_run(config, None, (), session, adapter=run_dir)
    decoding, visual = parts.decoding, parts.visual.get(OWN_IMAGES)
    ways = {"label": decoding}
    if decoding.method == "generate":
        ways = {"greedy": replace(decoding, num_beams=1), f"beam {num_beams}": replace(decoding, num_beams=num_beams)}
    answerers = {name: Answerer(parts.model, parts.codec, visual, way) for name, way in ways.items()}
    predictions: list[Prediction] = []
    size = config.data.eval_batch_size
    with Meter(len(inputs), "predict", "inputs", is_shown=len(inputs) > size) as meter:
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            ids = parts.codec.source_ids(texts[start : start + size], config.data.max_source_length)
            batch = _batch(part, ids, parts.codec.pad_token_id, visual).to(parts.device)
            columns = zip(*(answerer.answer(batch) for answerer in answerers.values()), strict=True)
            for item, answers in zip(part, columns, strict=True):
                by_way = {name: answer.text for name, answer in zip(answerers, answers, strict=True)}
                predictions.append(Prediction(item.image, item.columns, by_way, answers[0].log_likelihoods))
            meter.add(len(part))
    return predictions


def _batch(
    inputs: Sequence[PredictionInput], ids: Sequence[list[int]], pad_token_id: int, visual: VisualInput | None
) -> Batch:
    pixels = visual.source.read(range(len(inputs)), [str(item.image) for item in inputs]) if visual else {}
    return collate([Example(index, row, []) for index, row in enumerate(ids)], pad_token_id, **pixels)


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes one JSON object a line, whole or not at all: image, columns, answers and log-likelihoods, where given."""
    lines = []
    for item in predictions:
        record = {
            **({"image": str(item.image)} if item.image else {}),
            "columns": item.columns,
            "answers": item.answers,
            **({"log_likelihoods": item.log_likelihoods} if item.log_likelihoods is not None else {}),
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
