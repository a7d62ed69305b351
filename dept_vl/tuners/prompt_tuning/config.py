"""Settings of prompt tuning. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.prompts.config import PromptInit, PromptRate
from dept_vl.tuners.rates import PROMPT_RATE


@dataclass(frozen=True, config=STRICT)
class PromptTuningConfig(PromptInit):
    """A soft prompt of l vectors and nothing else: the baseline DePT is compared with at the same budget."""

    implementation: ClassVar[str] = "dept_vl.tuners.prompt_tuning.model:PromptTuning"
    reference: ClassVar[str] = "Lester et al. 2021, arXiv 2104.08691"
    recipe_source: ClassVar[str] = "the fields' defaults: Table 10 of Shi & Lipani 2024, but the rate"
    name: Literal["prompt-tuning"] = "prompt-tuning"
    lr: PromptRate = PROMPT_RATE
    num_virtual_tokens: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="soft prompt length, tokens (DePT's budget_tokens)")
    ] = 100
