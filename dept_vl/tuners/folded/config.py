"""Settings of what is left of a folded method: none. No torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from dept_vl.strict import STRICT
from dept_vl.tuners.settings import TunerSettings


@dataclass(frozen=True, config=STRICT)
class FoldedConfig(TunerSettings):
    """Nothing: the backbone itself is what a method has made of it, and beside it is a visual projection at most.

    `dept_vl.runs.fold` writes it. It trains nothing of its own, so no run can be started with it.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.folded.model:Folded"
    reference: ClassVar[str] = "none: the backbone as it is"
    unfoldable: ClassVar[str | None] = "it is plain weights already"
    can_train: ClassVar[bool] = False
    name: Literal["folded"] = "folded"
