"""The computation of P-tuning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.linear_init import reset_linear
from dept_vl.tuners.layers.precision import full_precision
from dept_vl.tuners.p_tuning.config import PTuningConfig


class PTuning(Tuner):
    """[W2 tanh(W1 E + b1) + b2; text], as ``InputPrompts`` of ``ylsung/Ladder-Side-Tuning`` has it.

    The prompt stands before the text of the encoder, or of a decoder-only model's one stack. In evaluation it is a
    constant, which `as_prompt` returns.

    Attributes:
        embeddings: E, (num_virtual_tokens, d_model).
        network_in: W1 and b1, d_model -> hidden_size.
        network_out: W2 and b2, hidden_size -> d_model.
    """

    config: PTuningConfig

    def __init__(self, config: PTuningConfig, context: TunerContext) -> None:
        """Makes embeddings and network of the right shapes; `reset_parameters` sets their values."""
        super().__init__(config, context)
        self.embeddings = nn.Parameter(torch.zeros(config.num_virtual_tokens, context.d_model))
        self.network_in = nn.Linear(context.d_model, config.hidden_size)
        self.network_out = nn.Linear(config.hidden_size, context.d_model)

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Draws the embeddings from N(0, 1), as ``nn.Embedding``, and the network as ``nn.Linear``."""
        generator = torch.Generator().manual_seed(context.seed)
        self.embeddings.copy_(torch.randn(self.embeddings.shape, generator=generator))
        for layer in (self.network_in, self.network_out):
            reset_linear(layer, generator)

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [the network's prompt; text]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return prepend_prompt(self._prompt(), text_embeds)

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns that it does; see `Tuner.has_common_prompt`."""
        return True

    def _prompt(self) -> Tensor:
        with full_precision(self.embeddings):
            prompt: Tensor = self.network_out(torch.tanh(self.network_in(self.embeddings)))
        return prompt

    @torch.no_grad()
    def as_prompt(self) -> Tensor:
        """Returns what the network makes of its embeddings."""
        return self._prompt()

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``prompt_network``, the embeddings among it."""
        return [ParamGroup("prompt_network", tuple(self.parameters()), self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns the prompt's length and the widths of the network."""
        return {
            "m": self.num_virtual_tokens,
            "h": self.config.hidden_size,
            "s": self.max_source_length,
            "d": self.embeddings.shape[1],
        }
