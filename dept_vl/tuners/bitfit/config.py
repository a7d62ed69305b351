"""Settings of BitFit. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import GLUE, GLUE_SOURCE


@dataclass(frozen=True, config=STRICT)
class BitFitConfig(TunerSettings):
    """Biases alone: the backbone's own, or where it has none (T5, Llama) one added at every linear map and norm."""

    implementation: ClassVar[str] = "dept_vl.tuners.bitfit.model:BitFit"
    reference: ClassVar[str] = "Ben Zaken et al. 2022, BitFit, arXiv 2106.10199"
    recipe: ClassVar[Recipe] = GLUE
    recipe_source: ClassVar[str] = GLUE_SOURCE
    has_norm_biases: ClassVar[bool] = True
    name: Literal["bitfit"] = "bitfit"
    lr: Annotated[float, Field(gt=0, description="peak rate of the biases")] = 3e-4
