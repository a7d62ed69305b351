"""Every method, one line each. Importing this imports no torch.

A method is one folder, ``config.py`` (settings, no torch) and ``model.py`` (the computation), and its name in `Method`.
Nothing outside the folder knows it: callers use `dept_vl.tuners.settings.TunerSettings` and
`dept_vl.tuners.base.Tuner`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dept_vl.tuners.adapter.config import AdapterConfig, AdapterDropConfig
from dept_vl.tuners.adept.config import AdeptConfig
from dept_vl.tuners.attempt.config import AttemptConfig
from dept_vl.tuners.bitfit.config import BitFitConfig
from dept_vl.tuners.dept.config import DeptConfig
from dept_vl.tuners.fine_tuning.config import FineTuningConfig
from dept_vl.tuners.hyperdecoder.config import HyperDecoderConfig
from dept_vl.tuners.hyperformer.config import HyperFormerConfig
from dept_vl.tuners.ia3.config import Ia3Config
from dept_vl.tuners.lora.config import LoraConfig
from dept_vl.tuners.lst.config import LstConfig
from dept_vl.tuners.mpt.config import MptConfig
from dept_vl.tuners.p_tuning.config import PTuningConfig
from dept_vl.tuners.peft.config import AdaLoraConfig, DoraConfig, RsLoraConfig, VeraConfig
from dept_vl.tuners.prefix_tuning.config import PrefixTuningConfig
from dept_vl.tuners.prompt_tuning.config import PromptTuningConfig
from dept_vl.tuners.ulpt.config import UlptConfig

Method = Annotated[
    DeptConfig
    | PromptTuningConfig
    | PrefixTuningConfig
    | LoraConfig
    | Ia3Config
    | AdapterConfig
    | AdapterDropConfig
    | HyperFormerConfig
    | HyperDecoderConfig
    | LstConfig
    | BitFitConfig
    | AdeptConfig
    | AttemptConfig
    | MptConfig
    | PTuningConfig
    | UlptConfig
    | AdaLoraConfig
    | DoraConfig
    | RsLoraConfig
    | VeraConfig
    | FineTuningConfig,
    Field(discriminator="name"),
]  # fmt: skip
"""Settings of any one method, told apart by their field `name`."""
