"""First values of a soft prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dept_vl.errors import ConfigError
from dept_vl.tuners.prompts.config import PromptInit

if TYPE_CHECKING:
    from dept_vl.tuners.context import TunerContext

NUM_SPECIAL_ROWS = 3
"""Rows 0 to 2 of every T5 and Llama vocabulary are special tokens: never a start of a prompt vector."""


def initial_prompt(
    config: PromptInit, context: TunerContext, num_virtual_tokens: int, generator: torch.Generator
) -> Tensor:
    """Returns the soft prompt's first values, (num_virtual_tokens, d_model) float32 on the CPU.

    Raises:
        ConfigError: ``prompt_init="text"`` and the text has no tokens.
    """
    if config.prompt_init == "random":
        return _random(config, (num_virtual_tokens, context.d_model), generator)
    assert context.embed_tokens is not None  # first values are set on a real backbone alone
    assert context.tokenize is not None
    if config.prompt_init == "vocabulary":
        last = min(config.prompt_init_rows, context.vocab_size)
        first = min(NUM_SPECIAL_ROWS, last - 1)
        rows = torch.randint(first, last, (num_virtual_tokens,), generator=generator)
    else:
        rows = _tiled(context.tokenize(config.prompt_init_text or ""), num_virtual_tokens, config.prompt_init_text)
    return context.embed_tokens(rows).to(device="cpu", dtype=torch.float32, copy=True)


def _random(config: PromptInit, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    if config.prompt_init_distribution == "normal":
        return torch.randn(shape, generator=generator) * config.prompt_init_scale
    return (torch.rand(shape, generator=generator) * 2 - 1) * config.prompt_init_scale


def _tiled(token_ids: list[int], length: int, text: str | None) -> Tensor:
    """Repeats `token_ids` and cuts them to `length` (released DePT, ``prompt_tuning_lora.py``; PEFT does the same)."""
    if not token_ids:
        raise ConfigError(f"tuner.prompt_init_text: {text!r} has no tokens in this backbone's vocabulary")
    repeats = -(-length // len(token_ids))
    return torch.tensor((token_ids * repeats)[:length], dtype=torch.long)
