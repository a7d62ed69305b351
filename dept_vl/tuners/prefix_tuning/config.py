"""Settings of prefix tuning. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings


@dataclass(frozen=True, config=STRICT)
class PrefixTuningConfig(TunerSettings):
    """Trained keys and values that every attention reads before its own, without the MLP that can make them.

    Length and rate are those of PEFT's guide to prefix tuning of a T5. On T5-base 20 of them in 36 attentions are
    1,105,920 parameters.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.prefix_tuning.model:PrefixTuning"
    reference: ClassVar[str] = "Li & Liang 2021, arXiv 2101.00190"
    unfoldable: ClassVar[str | None] = (
        "its keys and values stand before an attention's own, where no plain model has any"
    )
    recipe: ClassVar[Recipe] = {
        "data": {"batch_size": 8, "loss_mean": "tokens"},
        "optim": {"beta2": 0.999, "eps": 1e-8, "warmup_steps": 0},  # torch's AdamW, whose decay is 0.01
        "loop": {"epochs": 5, "eval_every_epochs": 1},
    }
    recipe_source: ClassVar[str] = "PEFT's guide: docs/source/task_guides/seq2seq-prefix-tuning.md"
    name: Literal["prefix-tuning"] = "prefix-tuning"
    lr: Annotated[float, Field(gt=0, description="peak rate of the keys and values")] = 1e-2
    prefix_length: Annotated[int, Field(ge=1, le=MAX_SIZE, description="keys and values in every attention")] = 20
    init_std: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="standard deviation of their first values")
    ] = 0.02
