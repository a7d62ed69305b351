"""Settings of ADePT. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.prompts.config import PromptInit
from dept_vl.tuners.settings import Recipe
from dept_vl.tuners.shared_recipes import TRAINER


@dataclass(frozen=True, config=STRICT)
class AdeptConfig(PromptInit):
    """A short soft prompt and a small network that shifts each text token's embedding by a function of itself.

    Sizes, rates and the network's start are those of the released code (``HungerPWAY/ADePT``): on T5-base m = 60 and
    r = 19 are 76,051 parameters, the nearest below a prompt of 100 tokens.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.adept.model:Adept"
    reference: ClassVar[str] = "Tang et al. 2025, ADePT, arXiv 2501.03291"
    # The command asks for a decay of 0.01, and train.py builds AdamW without one; ours is the command's.
    recipe: ClassVar[Recipe] = {
        "data": {"batch_size": 32, "loss_mean": "tokens"},
        "optim": {**TRAINER, "weight_decay": 0.01, "eps": 1e-6},
        "loop": {"max_steps": 30_000, "eval_every_steps": 1_000},
    }
    recipe_source: ClassVar[str] = "HungerPWAY/ADePT: README.md, train.py"
    name: Literal["adept"] = "adept"
    offset_lr: Annotated[float, Field(gt=0, description="peak rate of the network of the offset")] = 1e-4
    num_virtual_tokens: Annotated[int, Field(ge=1, le=MAX_SIZE, description="soft prompt length m, tokens")] = 60
    rank: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width r of the network's hidden layer")] = 19
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="of the hidden layer before its ReLU, while training (released code)")
    ] = 0.1
