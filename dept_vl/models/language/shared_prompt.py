"""A prompt that all rows of a batch have in common, which a decoder-only model reads once instead of once a row.

What stands first in such a model depends on nothing behind it, so the prompt's hidden states, keys and values are the
same in every row (Juravsky et al. 2024, "Hydragen", arXiv 2402.05099, for inference). Of n rows with m prompt tokens
and t others, n m + n t tokens become m + n t. In training prompt and rows go through the model as one sequence, and
autograd adds up what the rows ask of the prompt; without gradient the rows read kept keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dept_vl.tuners.base import Tuner
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.extra_keys import ExtraKeys
from dept_vl.tuners.places.sites import Site

PromptKeys = Mapping[Site, ExtraKeys]
"""A prompt's keys and values at every attention, (1, prompt, width), positions in them."""


class KeptPromptKeys:
    """The keys and values of the prompt that was last read without gradient.

    They are taken again for exactly the same vectors in the same precision. So they must be asked of one backbone
    alone, whose weights stay as they are and inside which nothing acts.
    """

    def __init__(self) -> None:
        """Keeps nothing yet."""
        self._kept: tuple[Tensor, torch.dtype | None, PromptKeys] | None = None

    def of(self, prompt: Tensor, make: Callable[[], PromptKeys]) -> PromptKeys:
        """Returns what is kept of a prompt, (1, prompt, d_model), or what `make` makes of it.

        What is made without gradient is kept.
        """
        if torch.is_grad_enabled():
            return make()
        device = prompt.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        kept = self._kept  # taken once: another thread may put something else there
        if kept is not None and kept[1] is autocast and _is_same(kept[0], prompt):
            return kept[2]
        keys = make()
        self._kept = prompt.detach().clone(), autocast, keys
        return keys


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


@dataclass(frozen=True)
class SharedPrompt:
    """Says that the rows of a batch have one prompt, and what may be done with it.

    Attributes:
        num_tokens: At the beginning of every row, the same vectors in each.
        kept: Where the keys and values of an adapter's prompt are kept; None where the backbone's weights are trained.
    """

    num_tokens: int
    kept: KeptPromptKeys | None


def shared_prompt(tuner: Tuner, info: ForwardInfo, kept: KeptPromptKeys | None) -> SharedPrompt | None:
    """Returns the prompt that a method puts before every text of a pass; None where texts have prompts of their own.

    A method without a prompt has one of no tokens: rows may have images in common all the same.
    """
    num_tokens = tuner.num_virtual_tokens
    return SharedPrompt(num_tokens, kept) if not num_tokens or tuner.has_common_prompt(info) else None
