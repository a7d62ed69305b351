"""The computation of prompt tuning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.prompt_tuning.config import PromptTuningConfig
from dept_vl.tuners.prompts.init import initial_prompt


class PromptTuning(Tuner):
    """Trainable vectors before the text; the text's own embeddings stay as they are (Lester et al. 2021).

    Attributes:
        soft_prompt: (num_virtual_tokens, d_model).
    """

    config: PromptTuningConfig

    def __init__(self, config: PromptTuningConfig, context: TunerContext) -> None:
        """Makes a prompt of the right shape; `reset_parameters` sets its values."""
        super().__init__(config, context)
        self.soft_prompt = nn.Parameter(torch.zeros(config.num_virtual_tokens, context.d_model))

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets the prompt as configured."""
        generator = torch.Generator().manual_seed(context.seed)
        self.soft_prompt.copy_(initial_prompt(self.config, context, self.num_virtual_tokens, generator))

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [P; text]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return prepend_prompt(self.soft_prompt, text_embeds)

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns that it does; see `Tuner.has_common_prompt`."""
        return True

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``soft_prompt``."""
        return [ParamGroup("soft_prompt", (self.soft_prompt,), self.config.lr)]

    def prompt(self) -> nn.Parameter:
        """Returns the soft prompt."""
        return self.soft_prompt

    def as_prompt(self) -> Tensor:
        """Returns a copy of the soft prompt."""
        return self.soft_prompt.detach().clone()

    def facts(self) -> dict[str, Fact]:
        """Returns the prompt's length and the width of its vectors."""
        return {"m": self.num_virtual_tokens, "s": self.max_source_length, "d": self.soft_prompt.shape[1]}
