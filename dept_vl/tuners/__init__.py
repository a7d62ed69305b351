"""What is trained beside the visual projection. Importing this package imports no torch.

A method is one folder, ``config.py`` (settings, no torch) and ``model.py`` (the computation), plus its name in
`TunerConfig`. Nothing outside the folder knows the method: callers use `Tuner` and the two methods of its settings,
``budget(d_model, max_source_length)`` and ``build(info)``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dept_vl.tuners.dept.config import DeptConfig
from dept_vl.tuners.prompt_tuning.config import PromptTuningConfig

TunerConfig = Annotated[DeptConfig | PromptTuningConfig, Field(discriminator="name")]
"""Settings of any method, told apart by their field `name`."""

__all__ = ["DeptConfig", "PromptTuningConfig", "TunerConfig"]
