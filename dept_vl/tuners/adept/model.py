"""The computation of ADePT."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dept_vl.tuners.adept.config import AdeptConfig
from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.dropout import dropout
from dept_vl.tuners.layers.precision import full_precision
from dept_vl.tuners.prompts.init import initial_prompt


class Adept(Tuner):
    """[P; e + relu(e W1 + b1) W2 + b2] for the embedding e of each text token (Tang et al. 2025, section 3).

    Where DePT shifts a token by its place in the text, ADePT shifts it by what it is: no length is built in, and in
    evaluation the method is a prompt on another word embedding table (`folded_embeddings`). Prompt and visual tokens
    get no offset. W2 and both biases start at zero, as prompt tuning.

    Attributes:
        soft_prompt: P, (num_virtual_tokens, d_model).
        offset_down: W1, (d_model, rank).
        offset_down_bias: b1, (rank,).
        offset_up: W2, (rank, d_model).
        offset_up_bias: b2, (d_model,).
    """

    config: AdeptConfig

    def __init__(self, config: AdeptConfig, context: TunerContext) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values."""
        super().__init__(config, context)
        d, r = context.d_model, config.rank
        self.soft_prompt = nn.Parameter(torch.zeros(config.num_virtual_tokens, d))
        self.offset_down = nn.Parameter(torch.zeros(d, r))
        self.offset_down_bias = nn.Parameter(torch.zeros(r))
        self.offset_up = nn.Parameter(torch.zeros(r, d))
        self.offset_up_bias = nn.Parameter(torch.zeros(d))

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets the prompt as configured, W1 uniform within 1 / sqrt(rank), the rest zero.

        The bound is the released code's: Kaiming's rule reads W1's rank columns as its inputs. The prompt is drawn
        first, so prompt tuning with the same seed and length has the same.
        """
        generator = torch.Generator().manual_seed(context.seed)
        self.soft_prompt.copy_(initial_prompt(self.config, context, self.num_virtual_tokens, generator))
        uniform = torch.rand(self.offset_down.shape, generator=generator) * 2 - 1
        self.offset_down.copy_(uniform * self.config.rank**-0.5)
        for zero in (self.offset_down_bias, self.offset_up, self.offset_up_bias):
            zero.zero_()

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [P; text + offset]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return prepend_prompt(self.soft_prompt, self._shifted(text_embeds))

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns that it does; see `Tuner.has_common_prompt`."""
        return True

    def _shifted(self, embeds: Tensor) -> Tensor:
        """Returns (..., d_model) embeddings with their offsets."""
        with full_precision(embeds):
            hidden = embeds.float() @ self.offset_down + self.offset_down_bias  # (..., rank)
            hidden = dropout(hidden, self.config.dropout, self.training)
            offset = torch.relu(hidden) @ self.offset_up + self.offset_up_bias  # (..., d_model)
            return (embeds + offset).to(embeds.dtype)

    @torch.no_grad()
    def folded_embeddings(self, table: Tensor) -> Tensor:
        """Returns every row of the table with its offset, without dropout; see `Tuner.folded_embeddings`."""
        was_training = self.training
        self.eval()
        try:
            return self._shifted(table.float())
        finally:
            self.train(was_training)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``soft_prompt`` and ``offset``, which train at different rates."""
        offset = (self.offset_down, self.offset_down_bias, self.offset_up, self.offset_up_bias)
        return [
            ParamGroup("soft_prompt", (self.soft_prompt,), self.config.lr),
            ParamGroup("offset", offset, self.config.offset_lr),
        ]

    def prompt(self) -> nn.Parameter:
        """Returns the soft prompt."""
        return self.soft_prompt

    def facts(self) -> dict[str, Fact]:
        """Returns the prompt's length and the widths of the network."""
        return {
            "m": self.num_virtual_tokens,
            "r": self.config.rank,
            "s": self.max_source_length,
            "d": self.soft_prompt.shape[1],
        }
