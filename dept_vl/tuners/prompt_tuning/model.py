"""The computation of prompt tuning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import BackboneInfo, Tuner, prepend_prompt
from dept_vl.tuners.dept.budget import Budget
from dept_vl.tuners.prompt_init import initial_prompt
from dept_vl.tuners.prompt_tuning.config import PromptTuningConfig


class PromptTuning(Tuner):
    """Trainable vectors before the text; the text's own embeddings stay as they are (Lester et al. 2021).

    Attributes:
        soft_prompt: (num_virtual_tokens, d_model).
    """

    def __init__(self, config: PromptTuningConfig, budget: Budget) -> None:
        """Makes a prompt of the right shape; `reset_parameters` sets its values."""
        super().__init__()
        self.config = config
        self.num_virtual_tokens = budget.num_virtual_tokens
        self.max_source_length = budget.max_source_length
        self.soft_prompt = nn.Parameter(torch.zeros(budget.num_virtual_tokens, budget.d_model))

    @torch.no_grad()
    def reset_parameters(self, info: BackboneInfo) -> None:
        """Sets the prompt as configured."""
        generator = torch.Generator().manual_seed(info.seed)
        self.soft_prompt.copy_(initial_prompt(self.config, info, self.num_virtual_tokens, generator))

    def embed(self, text_embeds: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """Returns [P; text]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return prepend_prompt(self.soft_prompt, text_embeds)

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the one group ``soft_prompt``."""
        return {"soft_prompt": [self.soft_prompt]}
