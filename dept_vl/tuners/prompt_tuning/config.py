"""Settings of prompt tuning. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.tuners.dept.budget import Budget
from dept_vl.tuners.prompt_config import FROZEN, MAX_SIZE, PromptInit

if TYPE_CHECKING:
    from dept_vl.tuners.base import BackboneInfo
    from dept_vl.tuners.prompt_tuning.model import PromptTuning


@dataclass(frozen=True, config=FROZEN)
class PromptTuningConfig(PromptInit):
    """A soft prompt of l vectors and nothing else: the baseline DePT is compared with at the same budget."""

    name: Literal["prompt-tuning"] = "prompt-tuning"
    num_virtual_tokens: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="soft prompt length, tokens (DePT's budget_tokens)")
    ] = 100

    def budget(self, d_model: int, max_source_length: int) -> Budget:
        """Returns the parameter count: l vectors, rank 0; always exact."""
        return Budget(self.num_virtual_tokens, 0, max_source_length, d_model, self.num_virtual_tokens)

    def build_empty(self, d_model: int, max_source_length: int) -> PromptTuning:
        """Builds the tuner with a tensor of the right shape and no set values, on the default device (or meta)."""
        from dept_vl.tuners.prompt_tuning.model import PromptTuning

        return PromptTuning(self, self.budget(d_model, max_source_length))

    def build(self, info: BackboneInfo) -> PromptTuning:
        """Builds the tuner at its first values.

        Raises:
            ConfigError: The prompt's text has no tokens.
        """
        tuner = self.build_empty(info.d_model, info.max_source_length)
        tuner.reset_parameters(info)
        return tuner
