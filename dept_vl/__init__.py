"""Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks.

What is offered here is imported when it is asked for, so that ``import dept_vl`` needs no torch.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from dept_vl.system.version import __version__

if TYPE_CHECKING:
    from dept_vl.api.load import fold, load
    from dept_vl.api.model import Model
    from dept_vl.api.training import train
    from dept_vl.evaluators import evaluate_texts as evaluate
    from dept_vl.runs.callbacks import Callback
    from dept_vl.runs.trackers import Tracker

__all__ = ["Callback", "Model", "Tracker", "__version__", "evaluate", "fold", "load", "train"]

_LAZY = {
    "Callback": "dept_vl.runs.callbacks:Callback",
    "Model": "dept_vl.api.model:Model",
    "Tracker": "dept_vl.runs.trackers:Tracker",
    "evaluate": "dept_vl.evaluators:evaluate_texts",
    "fold": "dept_vl.api.load:fold",
    "load": "dept_vl.api.load:load",
    "train": "dept_vl.api.training:train",
}
"""What is offered -> where it is."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        from dept_vl.registry import suggest

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{suggest(name, __all__)}")
    value = globals()[name] = resolve_name(_LAZY[name])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
