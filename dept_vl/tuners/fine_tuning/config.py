"""Settings of full fine-tuning. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import GLUE, GLUE_SOURCE


@dataclass(frozen=True, config=STRICT)
class FineTuningConfig(TunerSettings):
    """Every tensor of the backbone, in a copy of the run's own; a tied output matrix stays tied."""

    implementation: ClassVar[str] = "dept_vl.tuners.fine_tuning.model:FineTuning"
    reference: ClassVar[str] = "every tensor of the backbone"
    recipe: ClassVar[Recipe] = GLUE
    recipe_source: ClassVar[str] = GLUE_SOURCE
    name: Literal["fine-tuning"] = "fine-tuning"
    lr: Annotated[float, Field(gt=0, description="peak rate of the backbone (Sung et al. 2022: 3e-4 on GLUE)")] = 3e-4
