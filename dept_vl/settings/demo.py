"""The embedded demo's settings, and which file a run's settings begin with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.models.vision.encoders import DefaultImageEncoder
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


def demo_settings(task: Task | TaskMix, tuner: str, *, has_own_encoder: bool = False) -> Tree:
    """Returns the demo's nested settings for a task and a method, or several as ``dept+lora``.

    For a task that a file declares they are the demo's models and steps, without its scenes; its pictures are no drawn
    scenes, so the projection is trained too, and the method has rates for that. For several tasks they are those of the
    one with most steps.

    Args:
        task: Which, or several.
        tuner: The method.
        has_own_encoder: Whether the run's image encoder is of another kind than the packaged one. Then nothing is said
            of it, and the projection, of which there is none for it, is trained too.

    Raises:
        ConfigError: As `demo_file`.
    """
    each = task.tasks if isinstance(task, TaskMix) else (task,)
    is_own = any(one.declaration is not None for one in each)
    trains_projection = is_own or has_own_encoder
    parts = {name: _of_method(name, trains_projection=trains_projection) for name in tuner.split("+")}
    own = parts.get(tuner, {"parts": parts})
    longest = max((read_yaml(demo_file(one)) for one in each), key=lambda file: int(file["loop"]["max_steps"]))
    tree = {**longest, "task": task.name, "tuner": {"name": tuner, **own}}
    if is_own:
        tree["data"] = {key: value for key, value in tree["data"].items() if key != "dir"}
    left_out = {"frozen_projection"} if trains_projection else set()
    left_out |= {"image_encoder"} if has_own_encoder else set()
    tree["model"] = {key: value for key, value in tree["model"].items() if key not in left_out}
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
    is_of_demo = all(one.uses_images and one.declaration is None for one in each) and not is_own_data
    packaged = DefaultImageEncoder().kind
    has_own_encoder = overrides.get("model.image_encoder.kind", packaged) != packaged
    if base is None and overrides.get("data.dir", DEMO if is_of_demo else None) == DEMO:
        models = " and T5" if has_own_encoder else ", CLIP and T5"
        logger.info("no data and no --config given: using the embedded scenes%s", models)
        base = Path(DEMO)
    if base == Path(DEMO):
        return overlay_config(demo_settings(task, tuner, has_own_encoder=has_own_encoder), overrides)
    return load_config(base, overrides)


def _of_method(tuner: str, *, trains_projection: bool) -> Tree:
    """Returns what differs from a method's defaults for models as small as the demo's.

    Sizes, and rates beside a projection that is trained too; else rates beside the demo's frozen one, where the
    method's defaults do not do.
    """
    path = _CONFIGS / "tuners" / f"{tuner}.yaml"
    own = read_yaml(path) if path.is_file() else {}
    if trains_projection:
        return own
    rates: Tree = read_yaml(ASSETS / "rates.yaml").get(tuner, {})
    return {key: value for key, value in own.items() if not key.endswith("lr")} | rates
