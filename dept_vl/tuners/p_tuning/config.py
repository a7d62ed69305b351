"""Settings of P-tuning. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import TWENTY_EPOCHS


@dataclass(frozen=True, config=STRICT)
class PTuningConfig(TunerSettings):
    """A soft prompt that comes out of a small network of its own embeddings, as Sung et al. train it on CLIP-T5.

    Sizes and rate are those of ``VL-T5/scripts/image/prompt_tuning.sh`` of ``ylsung/Ladder-Side-Tuning``: on T5-base
    1,261,088 parameters.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.p_tuning.model:PTuning"
    reference: ClassVar[str] = "Liu et al. 2021, P-tuning, arXiv 2103.10385"
    recipe: ClassVar[Recipe] = {
        "data": {"batch_size": 300},
        "optim": {
            "weight_decay": 0.01,
            "weight_decay_on": "not-biases",
            "beta2": 0.999,
            "eps": 1e-6,
            "warmup_proportion": 0.1,
            "projection_lr": 3e-3,
            "warmup": "transformers",
            "max_grad_norm": 5.0,
        },
        "loop": TWENTY_EPOCHS,
    }
    recipe_source: ClassVar[str] = (
        "ylsung/Ladder-Side-Tuning: VL-T5/scripts/image/prompt_tuning.sh, VL-T5/src/param.py, trainer_base.py"
    )
    name: Literal["p-tuning"] = "p-tuning"
    lr: Annotated[float, Field(gt=0, description="peak rate of embeddings and network")] = 3e-3
    num_virtual_tokens: Annotated[int, Field(ge=1, le=MAX_SIZE, description="soft prompt length, tokens")] = 40
    hidden_size: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width of the network's hidden layer")] = 800
