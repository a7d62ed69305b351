"""Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks.

What is offered here is imported when it is asked for, so that ``import dept_vl`` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dept_vl.api.load import load
    from dept_vl.api.model import Model

__version__ = "0.1.0"

__all__ = ["Model", "__version__", "load"]

_LAZY = {
    "Model": "dept_vl.api.model",
    "load": "dept_vl.api.load",
}
"""What is offered -> the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        from dept_vl.registry import suggest

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{suggest(name, __all__)}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
