"""Answers about images or texts with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dept_vl.data.collator import Batch
from dept_vl.inference.answer import Answer, Answerer
from dept_vl.inference.asked import Asked, ask
from dept_vl.inference.inputs import PredictionInput, source_texts
from dept_vl.runs.decoding import Decoding
from dept_vl.runs.open import OWN_IMAGES, open_run
from dept_vl.runs.session import Session
from dept_vl.settings.schema import TrainConfig

DEFAULT_BEAMS = 5


@dataclass(frozen=True)
class Prediction:
    """What the model says about one input.

    Attributes:
        image: The image, or None.
        columns: The template's columns.
        answers: The answer by how it was made: ``greedy`` and ``beam N``, or ``label``. The last is the one that counts
            where one alone does.
        log_likelihoods: Of every label, in nats, where labels were scored; else None.
        example_id: The input's id in the official results format, where it has one.
        references: What people answered, where that is known.
        confidence: Probability that the model gives to the answer that counts, 0 to 1; None if it was not asked for.
    """

    image: Path | None
    columns: dict[str, Any]
    answers: dict[str, str]
    log_likelihoods: dict[str, float] | None = None
    example_id: int | str | None = None
    references: tuple[str, ...] = ()
    confidence: float | None = None

    @property
    def answer(self) -> str:
        """The answer that counts."""
        return list(self.answers.values())[-1]


def predict_inputs(
    config: TrainConfig,
    run_dir: Path,
    inputs: Sequence[PredictionInput],
    *,
    num_beams: int | None = None,
    as_scored: bool = False,
    with_confidence: bool = False,
    session: Session | None = None,
) -> list[Prediction]:
    """Returns a prediction for every input; the image encoder runs on the fly.

    Where labels are scored, that is the most likely one; else the greedy answer and that of beam search.

    Args:
        config: The run's settings; of a run of several tasks those of the one that is asked (`TrainConfig.for_task`).
        run_dir: Holds the adapter.
        inputs: Images and columns, which `check_inputs` found right.
        num_beams: Beams of the second answer, 0 or 1: the greedy one alone; None: `DEFAULT_BEAMS`.
        as_scored: One answer: by `num_beams`, and without it as `dept-vl eval` answers.
        with_confidence: Whether predictions say how probable the model finds their answer.
        session: Frozen models shared with other runs of this process.

    Raises:
        CheckpointError: The adapter was trained on features of another encoder.
        DataError: An image is missing or damaged, or the template cannot read an input's columns.
    """
    texts = source_texts(config.resolve_task(), inputs)
    parts = open_run(config, None, (), session, adapter=run_dir)
    visual = parts.visual.get(OWN_IMAGES)
    ways = choose_ways(parts.decoding, num_beams, as_scored=as_scored)
    answerers = {name: Answerer(parts.model, parts.codec, visual, way, parts.task_id) for name, way in ways.items()}
    last = list(answerers.values())[-1]

    def answer(batch: Batch) -> list[tuple[tuple[Answer, ...], float | None]]:
        columns = [answerer.answer(batch) for answerer in answerers.values()]
        sure: Sequence[float | None] = [None] * len(columns[-1])
        if with_confidence:
            sure = last.confidences(batch, [one.text for one in columns[-1]])
        return list(zip(zip(*columns, strict=True), sure, strict=True))

    asked = [Asked(text, item.image, item.place) for text, item in zip(texts, inputs, strict=True)]
    found = ask(parts, config.data, asked, answer, batch_size=config.data.eval_batch_size)
    return [
        Prediction(
            item.image,
            item.columns,
            {name: one.text for name, one in zip(answerers, answers, strict=True)},
            answers[0].log_likelihoods,
            item.example_id,
            item.references,
            confidence,
        )
        for item, (answers, confidence) in zip(inputs, found, strict=True)
    ]


def choose_ways(decoding: Decoding, num_beams: int | None, *, as_scored: bool) -> dict[str, Decoding]:
    """Returns the ways to answer by name, the one that counts last."""
    if decoding.method == "score":
        return {"label": decoding}
    beams = num_beams if num_beams is not None else decoding.num_beams if as_scored else DEFAULT_BEAMS
    ways = {"greedy": replace(decoding, num_beams=1)}
    if beams > 1:
        ways[f"beam {beams}"] = replace(decoding, num_beams=beams)
    return dict(list(ways.items())[-1:]) if as_scored else ways
