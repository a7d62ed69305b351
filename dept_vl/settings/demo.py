"""Where the embedded demo's files lie: the settings it trains with."""

from __future__ import annotations

from pathlib import Path

from dept_vl.errors import ConfigError
from dept_vl.tasks import get_task

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "demo"
"""``clip/`` and ``t5/``, small frozen models, and ``configs/<task>/<tuner>.yaml``."""


def demo_config(task: str, tuner: str) -> Path:
    """Returns the settings of the embedded demo for a task and a tuner.

    Raises:
        ConfigError: There is no such task, or no demo of this pair.
    """
    configs = ASSETS / "configs"
    path = configs / get_task(task).name / f"{tuner}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(f"{p.parent.name} with {p.stem}" for p in configs.glob("*/*.yaml")))
        raise ConfigError(
            f"no embedded demo of task {task!r} with tuner {tuner!r} (there are: {known}); give --config and --data-dir"
        )
    return path
