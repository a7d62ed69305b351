"""Settings of (IA)3. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings


@dataclass(frozen=True, config=STRICT)
class Ia3Config(TunerSettings):
    """Learned vectors that scale keys, values and the feed-forward's hidden units.

    On T5-base 129,024. The paper's rows have 55,296, ``feed_forward: false``: the pattern of the authors' code for the
    feed-forward, ``wi_1.*``, is T5 v1.1's and finds nothing in T5 v1.0 (r-three/t-few ``configs/ia3.json``).
    """

    implementation: ClassVar[str] = "dept_vl.tuners.ia3.model:Ia3"
    reference: ClassVar[str] = "Liu et al. 2022, (IA)3, arXiv 2205.05638"
    recipe: ClassVar[Recipe] = {
        "data": {"batch_size": 8, "loss_mean": "tokens"},
        "optim": {
            "name": "adafactor",
            "scale_parameter": True,
            "weight_decay": 0.0,
            "warmup_proportion": 0.06,
            "warmup": "transformers",
            "max_grad_norm": 1.0,
        },
        "loop": {"max_steps": 1_000},
    }
    recipe_source: ClassVar[str] = (
        "r-three/t-few: configs/ia3.json, src/utils/Config.py, get_optimizer.py, get_scheduler.py"
    )
    name: Literal["ia3"] = "ia3"
    lr: Annotated[float, Field(gt=0, description="peak rate of the vectors")] = 3e-3
    feed_forward: Annotated[
        bool, Field(description="scale the feed-forward's hidden units too (false in the paper's tables)")
    ] = True
