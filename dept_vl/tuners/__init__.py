"""What is trained beside the visual projection: one folder a method. Importing this package imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dept_vl.tuners.dept.config import DeptConfig
from dept_vl.tuners.folded.config import FoldedConfig
from dept_vl.tuners.methods import Method
from dept_vl.tuners.none.config import NoneConfig
from dept_vl.tuners.prompt_tuning.config import PromptTuningConfig
from dept_vl.tuners.stack.config import StackConfig

TunerConfig = Annotated[Method | NoneConfig | StackConfig | FoldedConfig, Field(discriminator="name")]
"""Settings of a method, of none, of several at once, or of what is left of a folded one."""

__all__ = ["DeptConfig", "FoldedConfig", "Method", "NoneConfig", "PromptTuningConfig", "StackConfig", "TunerConfig"]
