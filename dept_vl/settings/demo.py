"""The embedded demo's settings, and which file a run's settings begin with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.settings.choices import Tree
from dept_vl.settings.declared import find_tasks
from dept_vl.settings.load import load_config, overlay_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.settings.yaml_files import read_yaml
from dept_vl.tasks import Task
from dept_vl.tasks.declared import make_task
from dept_vl.tasks.mixture import TaskMix

logger = logging.getLogger(__name__)

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


def demo_settings(task: Task | TaskMix, tuner: str) -> Tree:
    """Returns the demo's nested settings for a task and a method, or several as ``dept+lora``.

    For a task that a file declares they are the demo's models and steps, without its scenes; its pictures are no drawn
    scenes, so the projection is trained too, and the method has rates for that. For several tasks they are those of the
    one with most steps.

    Raises:
        ConfigError: As `demo_file`.
    """
    each = task.tasks if isinstance(task, TaskMix) else (task,)
    is_own = any(one.declaration is not None for one in each)
    parts = {name: _of_method(name, is_own=is_own) for name in tuner.split("+")}
    own = parts.get(tuner, {"parts": parts})
    longest = max((read_yaml(demo_file(one)) for one in each), key=lambda file: int(file["loop"]["max_steps"]))
    tree = {**longest, "task": task.name, "tuner": {"name": tuner, **own}}
    if is_own:
        tree["data"] = {key: value for key, value in tree["data"].items() if key != "dir"}
        tree["model"] = {key: value for key, value in tree["model"].items() if key != "frozen_projection"}
    if isinstance(task, Task) and task.declaration is not None:
        del tree["task"]
    return tree


def choose_settings(base: Path | None, overrides: Mapping[str, Any], *, is_own_data: bool = False) -> TrainConfig:
    """Returns the settings of a run: a file's, or the demo's, with overrides laid over them.

    Args:
        base: A YAML file, the name of a shipped one, or ``demo``; None: the demo's for a task it has and data that
            nobody names, else the defaults.
        overrides: Dotted key to value; ``declaration`` may be a checked one.
        is_own_data: Whether the caller brings the rows, or names the data itself.

    Raises:
        ConfigError: As `load_config` and `demo_settings`.
    """
    tuner, declaration = str(overrides.get("tuner.name", "dept")), overrides.get("declaration")
    task = find_tasks(str(overrides.get("task", "vqa"))) if declaration is None else make_task(declaration)
    is_own_data = is_own_data or overrides.get("data.rows") is not None
    each = task.tasks if isinstance(task, TaskMix) else (task,)
    is_of_demo = task.uses_images and all(one.declaration is None for one in each) and not is_own_data
    if base is None and overrides.get("data.dir", DEMO if is_of_demo else None) == DEMO:
        logger.info("no data and no --config given: using the embedded scenes, CLIP and T5")
        base = Path(DEMO)
    if base == Path(DEMO):
        return overlay_config(demo_settings(task, tuner), overrides)
    return load_config(base, overrides)


def _of_method(tuner: str, *, is_own: bool) -> Tree:
    """Returns what differs from a method's defaults for models as small as the demo's.

    Sizes, and rates beside a projection that is trained too; for the demo's own tasks those beside the frozen one,
    where the method's defaults do not do.
    """
    path = _CONFIGS / "tuners" / f"{tuner}.yaml"
    own = read_yaml(path) if path.is_file() else {}
    if is_own:
        return own
    rates: Tree = read_yaml(ASSETS / "rates.yaml").get(tuner, {})
    return {key: value for key, value in own.items() if not key.endswith("lr")} | rates
