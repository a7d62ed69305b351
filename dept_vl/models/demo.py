"""The small frozen models that ship with the package. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

DEMO = "demo"
"""What the settings call the packaged T5, the packaged CLIP and the embedded scenes."""

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "demo"
"""``clip/`` and ``t5/``, small frozen models, and ``projection/`` between them; ``configs/<task>.yaml``, a method's
sizes in ``configs/tuners/``, and its rates beside the frozen projection in ``configs/rates/``."""


def projection_folder(name: str, find_run: Callable[[str], Path]) -> Path:
    """Returns the folder of the run that ``model.frozen_projection`` names, or of the packaged projection."""
    return ASSETS / "projection" if name == DEMO else find_run(name)
