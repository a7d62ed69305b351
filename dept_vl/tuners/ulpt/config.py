"""Settings of ULPT. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SEED, MAX_SIZE, STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import TRAINER


@dataclass(frozen=True, config=STRICT)
class UlptConfig(TunerSettings):
    """A soft prompt of few numbers a token, projected to the backbone's width by a random matrix that is not trained.

    Sizes and rate are those of the released code (``MANGA-UOFA/ULPT``): on T5-base 100 tokens of 2 numbers, a scale and
    a shift are 1,736 parameters.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.ulpt.model:Ulpt"
    reference: ClassVar[str] = "Wu et al. 2025, ULPT, arXiv 2502.04501"
    # The command asks for a decay of 1e-5, and train.py builds AdamW without one; ours is the command's.
    recipe: ClassVar[Recipe] = {
        "data": {"batch_size": 16, "loss_mean": "tokens"},
        "optim": {**TRAINER, "weight_decay": 1e-5, "eps": 1e-6},
        "loop": {"max_steps": 30_000, "eval_every_steps": 1_000},
    }
    recipe_source: ClassVar[str] = "MANGA-UOFA/ULPT: README.md, train.py"
    name: Literal["ulpt"] = "ulpt"
    lr: Annotated[float, Field(gt=0, description="peak rate of codes, scale and shift")] = 6e-1
    num_virtual_tokens: Annotated[int, Field(ge=1, le=MAX_SIZE, description="soft prompt length l, tokens")] = 100
    rank: Annotated[int, Field(ge=1, le=MAX_SIZE, description="numbers r of each prompt token before projection")] = 2
    projection_seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED, description="what the random projection is drawn from; null: the run's seed"),
    ] = None
