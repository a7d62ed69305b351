"""How probable a model finds the tokens that it generates greedily, taken from the scores that it chooses them by."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor


class TokenProbabilities(LogitsProcessor):
    """Keeps the log-probability of the highest score of every step, which is the token that a greedy answer takes.

    It changes no score, and keeps one number a row and step where transformers' ``output_scores`` keeps the vocabulary.
    """

    def __init__(self) -> None:
        """Starts with no step."""
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Takes the scores of a step, (batch, vocabulary)."""
        self._steps.append(scores.amax(dim=-1) - scores.logsumexp(dim=-1))
        return scores

    def of_answers(self, num_tokens: list[int]) -> list[float]:
        """Returns the log-probability of each answer, in nats: the sum over its tokens.

        Args:
            num_tokens: Tokens of each answer; steps after them are not its own.
        """
        each = torch.stack(self._steps, dim=1).float().cpu()  # (batch, steps)
        is_own = torch.arange(each.shape[1]) < torch.tensor(num_tokens)[:, None]
        totals: list[float] = each.masked_fill(~is_own, 0.0).sum(dim=1).tolist()
        return totals
