"""Settings of no method: none. No torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from dept_vl.strict import STRICT
from dept_vl.tuners.settings import TunerSettings


@dataclass(frozen=True, config=STRICT)
class NoneConfig(TunerSettings):
    """Nothing beside the visual projection, which trains alone: every method's control, and how a connector begins."""

    implementation: ClassVar[str] = "dept_vl.tuners.folded.model:Folded"
    reference: ClassVar[str] = "none: the visual projection alone"
    recipe_source: ClassVar[str] = "the fields' defaults"
    has_tensors: ClassVar[bool] = False
    unfoldable: ClassVar[str | None] = "there is nothing to fold"
    name: Literal["none"] = "none"
