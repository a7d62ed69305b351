"""Settings of the soft prompt's first values, shared by the methods that have one. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.rates import checked_rate
from dept_vl.tuners.settings import TunerSettings

PromptRate = Annotated[
    float | str, Field(description="peak rate of the soft prompt; 0.3x: times the word embeddings' root mean square")
]

MAX_RUNS = 100
"""Cap on the runs whose prompts a method takes: each has m x d_model values."""


@dataclass(frozen=True, config=STRICT)
class PromptInit(TunerSettings):
    """How the soft prompt starts.

    The default samples rows of the frozen word embedding table, as Lester et al. 2021 (arXiv 2104.08691, section
    3.2) found best or level with class labels, and better than random values in all but the largest models. The
    released DePT code tiles one sentence about sentiment for every task ("text"); no one sentence fits all tasks, so
    that is a setting and not the default.
    """

    lr: PromptRate = 3e-1
    prompt_init: Annotated[
        Literal["vocabulary", "text", "random"],
        Field(description="soft prompt's start: sampled word embeddings, a text tiled to m tokens, or random values"),
    ] = "vocabulary"
    prompt_init_text: Annotated[
        str | None, Field(description="the text that prompt_init=text tiles (released DePT: a task sentence)")
    ] = None
    prompt_init_rows: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="prompt_init=vocabulary samples among so many first (common) rows")
    ] = 5_000
    prompt_init_distribution: Annotated[Literal["uniform", "normal"], Field(description="of prompt_init=random")] = (
        "uniform"
    )
    prompt_init_scale: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="prompt_init=random: half width, or standard deviation")
    ] = 0.5

    @field_validator("lr", mode="before")
    @classmethod
    def _check_rate(cls, value: Any) -> float | str:
        return checked_rate(value)

    @model_validator(mode="after")
    def _check_text(self) -> PromptInit:
        if self.prompt_init == "text" and not (self.prompt_init_text or "").strip():
            raise ValueError("prompt_init=text needs prompt_init_text, the text to start from")
        return self
