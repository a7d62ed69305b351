"""What a process does that needs no peft; in a module that does not import it, as the tests do."""

import sys
from importlib import import_module


def train_nothing_of_peft_s() -> None:
    for module in ("dept_vl.tuners", "dept_vl.tuners.lora.model", "dept_vl.training.trainer"):
        import_module(module)
    assert "peft" not in sys.modules
