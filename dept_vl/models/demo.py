"""The small frozen models that ship with the package. Importing this imports no torch."""

from __future__ import annotations

from pathlib import Path

DEMO = "demo"
"""What the settings call the packaged T5, the packaged CLIP and the embedded scenes."""

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "demo"
"""``clip/`` and ``t5/``, small frozen models, and ``projection/`` between them; ``configs/<task>.yaml``, a method's
sizes in ``configs/tuners/``, and its rates beside the frozen projection in ``rates.yaml``."""
