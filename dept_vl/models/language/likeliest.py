"""The likeliest answers that a model would generate, with their probabilities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dept_vl.models.language.base import Backbone


def likeliest(backbone: Backbone[Any], joint: Any, *, number: int, max_new_tokens: int) -> tuple[Tensor, Tensor]:
    """Returns the likeliest answers that a beam search of as many beams finds, likeliest first.

    Beams are ranked by probability alone: `Backbone.generate` divides by length, as transformers does by itself.

    Args:
        backbone: The frozen model.
        joint: The source.
        number: Answers a row, from 2 on; there may be likelier ones that the search has dropped on its way.
        max_new_tokens: As `Backbone.run_generation`.

    Returns:
        Ids, (batch, number, new tokens), padded on the right; and the log-probability of each, (batch, number), in
        nats: the sum over its tokens, its end of sequence included where it has one.

    Raises:
        DataError: As `Backbone.run_generation`.
    """
    found = backbone.run_generation(
        joint, num_beams=number, max_new_tokens=max_new_tokens, num_return_sequences=number, length_penalty=0.0,
        output_scores=True,
    )  # fmt: skip
    return found.sequences.unflatten(0, (-1, number)), found.sequences_scores.unflatten(0, (-1, number))
