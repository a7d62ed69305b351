"""Answers questions about images, or captions them, with a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from dept_vl.atomic import write_text
from dept_vl.components import VisualInput, check_features
from dept_vl.config import TrainConfig
from dept_vl.data.collator import Example, collate
from dept_vl.data.images import open_image
from dept_vl.data.visual import ImagePixels
from dept_vl.errors import ConfigError, DataError
from dept_vl.inference import generate_texts
from dept_vl.models.clip_encoder import ClipEncoder
from dept_vl.models.clip_t5 import CLIPT5
from dept_vl.processes import process_state
from dept_vl.tasks import get_task

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class PredictionInput:
    """One image and the columns the task's template reads, such as ``question``."""

    image: Path
    columns: dict[str, str]


@dataclass(frozen=True)
class Prediction:
    """What the model says about one input.

    Attributes:
        image: The image.
        columns: The template's columns.
        greedy: The greedy answer.
        beam: The answer of beam search.
        num_beams: How many beams.
    """

    image: Path
    columns: dict[str, str]
    greedy: str
    beam: str
    num_beams: int


def read_inputs(task_name: str, path: Path, question: str | None) -> list[PredictionInput]:
    """Returns what to predict, from an image, a folder of images, or a JSONL file.

    Args:
        task_name: Decides which columns are needed.
        path: An image; a folder, of which every JPEG, PNG and WebP is taken; or a ``.jsonl`` file of objects with
            ``image`` (relative to the file) and the task's input columns.
        question: The ``question`` of every input that brings none of its own.

    Raises:
        ConfigError: The task needs a column that is not given, or takes no question.
        DataError: Nothing there, or a line of the JSONL file is malformed.
    """
    task = get_task(task_name)
    if question is not None and "question" not in task.input_columns:
        raise ConfigError(f"--question: task {task.name!r} takes none; leave it out")
    given = {} if question is None else {"question": question}
    if path.is_dir():
        images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"{path}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})")
        inputs = [PredictionInput(image, given) for image in images]
    elif path.suffix.lower() == ".jsonl":
        inputs = _read_jsonl(path, given)
    else:
        inputs = [PredictionInput(path, given)]
    for item in inputs:
        lacking = [name for name in task.input_columns if not item.columns.get(name, "").strip()]
        if lacking:
            raise ConfigError(f"{item.image}: task {task.name!r} needs a {lacking[0]}; give --{lacking[0]} TEXT")
    return inputs


def _read_jsonl(path: Path, given: dict[str, str]) -> list[PredictionInput]:
    inputs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
            raise DataError(f"{path}, line {number}: expected an object of strings, got {line[:80]}")
        if "image" not in record:
            raise DataError(f'{path}, line {number}: missing "image" (has: {", ".join(record)})')
        columns = {name: value for name, value in record.items() if name != "image"}
        inputs.append(PredictionInput(path.parent / record["image"], {**given, **columns}))
    if not inputs:
        raise DataError(f"{path}: no lines")
    return inputs


def predict_images(
    config: TrainConfig, run_dir: Path, inputs: Sequence[PredictionInput], *, num_beams: int = 5
) -> list[Prediction]:
    """Returns a greedy and a beam-search prediction for every input; CLIP encodes the images.

    Args:
        config: The run's settings.
        run_dir: Holds the adapter.
        inputs: Images and columns.
        num_beams: Beams of the second prediction.

    Raises:
        CheckpointError: The adapter was trained on features of another encoder.
        DataError: An image is missing or damaged.
    """
    if num_beams < 1:
        raise ConfigError(f"--beams: must be at least 1, got {num_beams}")
    for item in inputs:
        open_image(item.image)  # all of them before the models are loaded
    task, device = get_task(config.task), process_state().device
    encoder = ClipEncoder.load(config.model.clip, device)
    visual = VisualInput(ImagePixels(Path(), encoder.preprocess), encoder, encoder.feature_dim, encoder.fingerprint)
    check_features(run_dir, visual)
    model, tokenizer = CLIPT5.from_pretrained(run_dir, config.model, max_source_length=config.data.max_source_length)
    model.to(device).eval()
    predictions: list[Prediction] = []
    size = config.data.eval_batch_size
    for start in tqdm(range(0, len(inputs), size), desc="predict", disable=len(inputs) <= size):
        part = inputs[start : start + size]
        texts = [task.template({**item.columns, "image": str(item.image)}) for item in part]
        answers = [_answer(config, model, tokenizer, visual, texts, part, beams, device) for beams in (1, num_beams)]
        predictions += [
            Prediction(item.image, item.columns, greedy, beam, num_beams)
            for item, greedy, beam in zip(part, *answers, strict=True)
        ]
    return predictions


def _answer(
    config: TrainConfig,
    model: CLIPT5,
    tokenizer: PreTrainedTokenizerBase,
    visual: VisualInput,
    texts: Sequence[str],
    inputs: Sequence[PredictionInput],
    num_beams: int,
    device: torch.device,
) -> list[str]:
    ids = tokenizer(list(texts), truncation=True, max_length=config.data.max_source_length)["input_ids"]
    batch = collate(
        [Example(index, row, []) for index, row in enumerate(ids)],
        int(tokenizer.pad_token_id),
        **visual.source.read(range(len(inputs)), [str(item.image) for item in inputs]),
    ).to(device)
    return generate_texts(
        model,
        batch,
        tokenizer,
        visual,
        num_beams=num_beams,
        max_new_tokens=config.data.max_target_length,
        precision=config.loop.precision,
    )


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    lines = [json.dumps({**asdict(p), "image": str(p.image)}, ensure_ascii=False) + "\n" for p in predictions]
    write_text(path, "".join(lines))
