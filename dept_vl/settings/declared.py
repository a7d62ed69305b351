"""Tasks by name or by file: reads a YAML file that declares one, and checks its metrics. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dept_vl.errors import ConfigError
from dept_vl.registry import suggest
from dept_vl.settings.yaml_files import read_yaml
from dept_vl.strict import expand_home
from dept_vl.tasks import Task, get_task, task_names
from dept_vl.tasks.declaration import SplitDeclaration, TaskDeclaration
from dept_vl.tasks.declared import make_task
from dept_vl.tasks.mixture import TaskMix, find_mix, is_mix

_ADAPTER = TypeAdapter(TaskDeclaration)


def is_task_file(name: str) -> bool:
    """Returns whether a task is given as a file that declares it, and not by name."""
    return name.lower().endswith((".yaml", ".yml")) and not is_mix(name)


def find_tasks(name: str) -> Task | TaskMix:
    """Returns a task as `find_task` does, or the several that a name such as ``rte+cola`` joins.

    Raises:
        ConfigError: As `find_task` and `find_mix`.
    """
    return find_mix(name) if is_mix(name) else find_task(name)


def find_task(name: str) -> Task:
    """Returns a task by its name, or by the YAML file that declares it; not under any protocol.

    Raises:
        ConfigError: There is no such task or file, or the file declares none; or the name joins several tasks.
    """
    if is_mix(name):
        raise ConfigError(f"{find_mix(name).name!r} names several tasks, and one is wanted here; name one of them")
    if is_task_file(name):
        return make_task(read_declaration(Path(expand_home(name))))
    try:
        return get_task(name)
    except ConfigError as error:
        raise ConfigError(f"{error}; a task of your own is given as its file, NAME.yaml") from None


def read_declaration(path: Path) -> TaskDeclaration:
    """Reads the file that declares a task.

    Raises:
        ConfigError: There is no such file, it is no YAML mapping, or what it says is unknown or does not fit together.
    """
    content = read_yaml(path, "the task", "the fields of a task (name, kind, template, ...)")
    return check_declaration(content, str(path))


def check_declaration(content: Mapping[str, Any], where: str) -> TaskDeclaration:
    """Returns what declares a task, every field checked and its metrics by their full names.

    Args:
        content: Its fields.
        where: What holds them, for messages.

    Raises:
        ConfigError: Fields are missing, unknown or do not fit together; all are named.
    """
    try:
        declaration = _ADAPTER.validate_python(content)
    except ValidationError as error:
        lines = sorted(_describe(detail) for detail in error.errors(include_url=False))
        raise ConfigError(f"{where}: not a task:\n  " + "\n  ".join(lines)) from None
    try:
        return _with_metrics(declaration)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _with_metrics(declaration: TaskDeclaration) -> TaskDeclaration:
    """Returns the declaration with its metrics and the score that counts by their full names."""
    from dept_vl.evaluators import EVALUATORS, evaluator_name, evaluator_names, score_name  # few runs need them

    name, kind = declaration.name, declaration.kind
    if declaration.format is None and name in task_names():
        raise ConfigError(f"name: {name!r} is a task of the package; choose another")
    metrics = make_task(declaration).evaluators
    try:
        names = tuple(evaluator_names(metrics))
        primary = declaration.primary_metric or metrics[0]
        score, owner = score_name(primary), evaluator_name(primary)
    except ConfigError as error:
        raise ConfigError(f"metrics: {error}") from None
    for one in dict.fromkeys((*names, owner)):
        if kind not in EVALUATORS[one].kinds:
            fitting = ", ".join(known for known, evaluator in EVALUATORS.items() if kind in evaluator.kinds)
            raise ConfigError(f"metrics: {one!r} does not score kind {kind!r}; those that do: {fitting}")
    return replace(declaration, metrics=tuple(dict.fromkeys((*names, owner))), primary_metric=score)


def _describe(detail: Mapping[str, Any]) -> str:
    """Returns one line about what pydantic found wrong."""
    place = ".".join(str(part) for part in detail["loc"])
    of_split = detail["loc"][:1] == ("split",)
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [*(SplitDeclaration if of_split else TaskDeclaration).__dataclass_fields__]
        return f"{place}: unknown field{suggest(str(detail['loc'][-1]), known)} (known: {', '.join(known)})"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{place}: missing"
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    message = message.replace("a dictionary or an instance of SplitDeclaration", "fields, such as val: 0.1")
    message = (
        message.removeprefix("Value ").removesuffix(f" after validation, not {len(detail['input'])}")
        if (detail["type"] == "too_short" and hasattr(detail["input"], "__len__"))
        else message
    )
    if not place:
        return message
    first = message if message.startswith("YAML") else f"{message[0].lower()}{message[1:]}"
    return f"{place}: {first}, got {detail.get('input')!r:.120}"
