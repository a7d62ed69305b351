"""Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks."""

from __future__ import annotations

import pkgutil
from typing import Any

__version__ = "0.1.0"

_OFFERED = {
    "evaluate": "dept_vl.evaluators:evaluate_texts",
}
"""What ``import dept_vl`` offers -> where it is, looked up when it is asked for: the import itself loads nothing."""


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(_OFFERED[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
