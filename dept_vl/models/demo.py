"""The small frozen models that ship with the package. Importing this imports no torch."""

from __future__ import annotations

from pathlib import Path

DEMO = "demo"
"""What the settings call the packaged T5, the packaged CLIP and the embedded scenes."""

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "demo"
"""``clip/`` and ``t5/``, small frozen models; ``configs/<task>.yaml``, and a method's sizes in ``configs/tuners/``."""
