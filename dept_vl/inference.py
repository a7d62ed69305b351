"""A model and a split to one prediction a row, shared over processes, each row counted once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from dept_vl.components import VisualInput
from dept_vl.data.collator import Batch
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.sampler import BatchRequest, evaluation_requests
from dept_vl.evaluators import Reference
from dept_vl.models.clip_t5 import CLIPT5
from dept_vl.processes import process_state
from dept_vl.tasks import Row


def predict_split(
    model: CLIPT5,
    dataset: TaskDataset,
    tokenizer: PreTrainedTokenizerBase,
    visual: VisualInput | None,
    *,
    batch_size: int,
    num_beams: int,
    max_new_tokens: int,
    precision: str = "float32",
    num_workers: int = 0,
    limit: int | None = None,
) -> list[str]:
    """Returns one prediction a row, in row order; ``""`` for rows whose image could not be read.

    Args:
        model: The unwrapped model; left in the mode it was in.
        dataset: A split opened for evaluation.
        tokenizer: Decodes.
        visual: The split's visual input.
        batch_size: Rows a process and forward.
        num_beams: 1 for greedy.
        max_new_tokens: Generated tokens at most.
        precision: ``"bf16"`` for autocast.
        num_workers: Loader processes.
        limit: Only the first so many rows.
    """
    state = process_state()
    num_rows = min(limit or len(dataset), len(dataset))
    rows = dataset.indices[dataset.indices < num_rows]
    requests = evaluation_requests(
        rows,
        dataset.source_lengths(rows.tolist()),
        batch_size,
        process_index=state.process_index,
        num_processes=state.num_processes,
    )
    loader: Iterable[tuple[BatchRequest, Batch]] = DataLoader(
        dataset, batch_size=None, sampler=requests, num_workers=num_workers
    )
    mine: list[tuple[int, str]] = []
    was_training = model.training
    model.eval()
    progress = tqdm(
        total=len(rows), desc="predict", unit="row", leave=False, disable=not state.is_main_process, mininterval=1.0
    )
    for request, batch in loader:
        texts = generate_texts(
            model, batch.to(state.device), tokenizer, visual,
            num_beams=num_beams, max_new_tokens=max_new_tokens, precision=precision,
        )  # fmt: skip
        mine += zip(request.indices, texts, strict=True)
        progress.update(len(texts) * state.num_processes)
    progress.close()
    model.train(was_training)
    predictions = [""] * num_rows
    for row, text in gather_object(mine):
        predictions[row] = text
    return predictions


@torch.no_grad()
def generate_texts(
    model: CLIPT5,
    batch: Batch,
    tokenizer: PreTrainedTokenizerBase,
    visual: VisualInput | None,
    *,
    num_beams: int,
    max_new_tokens: int,
    precision: str = "float32",
) -> list[str]:
    """Returns the generated text of every example of a batch, special tokens removed."""
    features = visual.features(batch) if visual else None
    with torch.autocast(batch.input_ids.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        tokens = model.generate(
            batch.input_ids, batch.attention_mask, features, num_beams=num_beams, max_new_tokens=max_new_tokens
        )
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def to_references(rows: Sequence[Row]) -> list[Reference]:
    """Returns what evaluators compare with, from rows of a split."""
    return [Reference(**row) for row in rows]
