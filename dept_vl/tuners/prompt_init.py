"""First values of a soft prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dept_vl.errors import ConfigError
from dept_vl.tuners.prompt_config import PromptInit

if TYPE_CHECKING:
    from dept_vl.tuners.base import BackboneInfo

NUM_SPECIAL_ROWS = 3
"""Rows 0 to 2 of every T5 and Llama vocabulary are special tokens: never a start of a prompt vector."""


def initial_prompt(
    config: PromptInit, info: BackboneInfo, num_virtual_tokens: int, generator: torch.Generator
) -> Tensor:
    """Returns the soft prompt's first values, (num_virtual_tokens, d_model) float32 on the CPU.

    Raises:
        ConfigError: ``prompt_init="text"`` and the text has no tokens.
    """
    if config.prompt_init == "random":
        return _random(config, (num_virtual_tokens, info.d_model), generator)
    table = info.word_embeddings.detach()
    if config.prompt_init == "vocabulary":
        last = min(config.prompt_init_rows, table.shape[0])
        first = min(NUM_SPECIAL_ROWS, last - 1)
        rows = torch.randint(first, last, (num_virtual_tokens,), generator=generator)
    else:
        rows = _tiled(info.tokenize(config.prompt_init_text or ""), num_virtual_tokens, config.prompt_init_text)
    return table[rows.to(table.device)].to(device="cpu", dtype=torch.float32, copy=True)


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
