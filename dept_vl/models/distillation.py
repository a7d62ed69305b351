"""How far a student's answers and hidden states are from a teacher's on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.models.language.base import Backbone
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site


@dataclass(frozen=True)
class Answer:
    """One pass over a batch.

    Attributes:
        logits: (batch, target, vocabulary).
        states: What came out of the last norm of each stack, (batch, length, d_model), by its place.
    """

    logits: Tensor
    states: Mapping[Site, Tensor]

    @classmethod
    def of(cls, logits: Tensor, info: ForwardInfo) -> Answer:
        """Returns a pass in which `state_hooks` recorded."""
        return cls(logits, {key.site: state for key, state in info.records.items() if isinstance(key, _LastState)})


@dataclass(frozen=True)
class _LastState:
    """Key of `ForwardInfo.records`."""

    site: Site


class _Record(SiteHook):
    def __init__(self, site: Site) -> None:
        self._key = _LastState(site)

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> None:
        info.records[self._key] = output


def state_hooks(backbone: Backbone[Any]) -> dict[Site, SiteHook]:
    """Returns what records the last hidden states of encoder and decoder, or of the one stack."""
    return {site: _Record(site) for site in backbone.places if site.layer is None and site.part == "norm"}


def distance_per_example(student: Answer, teacher: Answer, source_mask: Tensor, labels: Tensor) -> Tensor:
    """Returns KL(teacher || student) of the answers and the mean squared errors of the hidden states, summed.

    Wang et al. 2023 (MPT, arXiv 2303.02861, section 3.2) sum both over a batch; here each is an example's own mean, as
    its loss is, so that padding and lengths do not weigh: KL over its label tokens, the squared error over the features
    of the places that it reads, for encoder and decoder apart.

    Args:
        student: With gradients.
        teacher: Without.
        source_mask: (batch, source), 1 where the stack that reads the source has a token.
        labels: (batch, target) target ids, `IGNORE_INDEX` for padding.

    Returns:
        (batch,) float32.
    """
    is_label = labels != IGNORE_INDEX  # (batch, target)
    ours, theirs = (nn.functional.log_softmax(answer.logits.float(), dim=-1) for answer in (student, teacher))
    distances = nn.functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)  # (batch, target)
    total = _mean(distances, is_label)
    for site, state in student.states.items():
        error = (state.float() - teacher.states[site].float()).square().mean(dim=-1)  # (batch, length)
        total = total + _mean(error, _is_read(site, len(student.states), source_mask, is_label))
    return total


def _is_read(site: Site, num_stacks: int, source_mask: Tensor, is_label: Tensor) -> Tensor:
    """Returns which places of a stack an example reads, (batch, length)."""
    if site.stack == "encoder":
        return source_mask.bool()
    if num_stacks > 1:
        return is_label
    # A decoder-only model reads the source and then every label but the last, each to predict the next.
    return torch.cat([source_mask.bool(), is_label[:, 1:]], dim=1)


def _mean(values: Tensor, is_counted: Tensor) -> Tensor:
    """Returns each row's mean over the places that count, 0 where none does."""
    counted = is_counted.to(values.dtype)
    return (values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
