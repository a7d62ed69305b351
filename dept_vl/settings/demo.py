"""The embedded demo's settings."""

from __future__ import annotations

from pathlib import Path

from dept_vl.errors import ConfigError
from dept_vl.models.demo import ASSETS
from dept_vl.settings.choices import Tree
from dept_vl.settings.load import read_yaml
from dept_vl.tasks import Task

_CONFIGS = ASSETS / "configs"


def demo_file(task: Task) -> Path:
    """Returns the file of the demo's settings for a task, the method's left out.

    Raises:
        ConfigError: There is no demo of it.
    """
    name = task.name
    if task.declaration is not None:
        name = "coco" if task.declaration.kind == "caption" else "vqa"
    path = _CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _CONFIGS.glob("*.yaml")))
        raise ConfigError(
            f"no embedded demo of task {task.name!r} (there are: {known}); give --data-dir DATA, and settings with "
            "--config"
        )
    return path


def demo_settings(task: Task, tuner: str) -> Tree:
    """Returns the demo's nested settings for a task and a method, or several as ``dept+lora``.

    For a task that a file declares they are the demo's models and steps, without its scenes.

    Raises:
        ConfigError: As `demo_file`.
    """
    parts = {name: _sizes(name) for name in tuner.split("+")}
    own = parts.get(tuner, {"parts": parts})
    tree = {**read_yaml(demo_file(task)), "tuner": {"name": tuner, **own}}
    if task.declaration is not None:
        del tree["task"]
        tree["data"] = {key: value for key, value in tree["data"].items() if key != "dir"}
    return tree


def _sizes(tuner: str) -> Tree:
    """Returns what differs from a method's defaults for models as small as the demo's."""
    path = _CONFIGS / "tuners" / f"{tuner}.yaml"
    return read_yaml(path) if path.is_file() else {}
