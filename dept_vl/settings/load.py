"""Reading the settings of a run: YAML and dotted overrides in, one immutable ``TrainConfig`` out.

Order of precedence: field defaults < recipe of the method < task declaration < YAML file < command line. Loading has no
side effects and imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from dept_vl.errors import ConfigError, SettingProblem, SettingsError
from dept_vl.registry import suggest
from dept_vl.settings.choices import Tree, dotted, unknown_kind, with_kinds
from dept_vl.settings.declared import check_declaration, is_task_file, read_declaration
from dept_vl.settings.help import fields_of, settings_of
from dept_vl.settings.layers import lay_over, merge, read_settings, with_nulls, without_replaced
from dept_vl.settings.marked import with_absolute_paths
from dept_vl.settings.renamed import is_record, new_key, refuse_both_names, with_new_groups, with_new_names
from dept_vl.settings.schema import TrainConfig
from dept_vl.strict import expand_home
from dept_vl.tasks import Task, get_task
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.declared import make_task
from dept_vl.tasks.mixture import TaskMix, find_mix, is_mix
from dept_vl.tuners import DeptConfig
from dept_vl.tuners.recipes import METHODS, recipe_notes, recipe_of
from dept_vl.tuners.settings import TunerSettings, is_rate
from dept_vl.tuners.stack.config import expand_name

_ADAPTER = TypeAdapter(TrainConfig)
_ANOTHER = "leave it out, or take another optim.name"


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Reads a YAML file, lays dotted overrides over it and checks the whole once.

    Args:
        path: A YAML file of nested settings (`read_settings`), or the name of a shipped one; None for the defaults
            alone.
        overrides: Dotted key to value, such as ``{"tuner.lr": 0.3}``; these win.

    Raises:
        ConfigError: The file is missing or no YAML mapping, or settings are unknown or invalid. All are reported
            together, each with its dotted key.
    """
    tree = read_settings(path) if path else {}
    return overlay_config(tree, overrides or {}, where=str(path) if path else "")


def overlay_config(tree: Tree, overrides: Mapping[str, Any], where: str = "") -> TrainConfig:
    """Lays dotted overrides over nested settings and checks the whole once.

    Raises:
        ConfigError: As `load_config`.
    """
    refuse_both_names(overrides)
    tree = with_new_groups(tree)
    given = {new_key(key): key for key in overrides}
    overlay: Tree = {}
    for key, value in overrides.items():
        _set(overlay, new_key(key), value)
    laid = lay_over(tree, overlay, given)
    try:
        config = config_from_tree(laid, where=where)
    except SettingsError as error:
        raise SettingsError(_attributed(error.problems, tree, given), where) from None
    _refuse_unread(config, given)
    return config


def _refuse_unread(config: TrainConfig, given: Mapping[str, str]) -> None:
    """Refuses settings beside the files' that are not read with the others.

    Raises:
        SettingsError: Prodigy is given a rate, schedule-free AdamW a schedule, a frozen projection a rate or a start.
    """
    name = config.optim.name
    problems = [
        SettingProblem(key, f"'prodigy' finds the rates itself, and would not read it; {_ANOTHER}", typed)
        for key, typed in given.items()
        if name == "prodigy" and is_rate(key)
    ]
    if name == "schedule-free" and "optim.schedule" in given:
        problems.append(
            SettingProblem("optim.schedule", f"'schedule-free' has none; {_ANOTHER}", given["optim.schedule"])
        )
    if config.model.frozen_projection is not None:
        why = "the projection of model.frozen_projection is not trained, and would not read it; leave one of them out"
        unread = ("optim.projection_lr", "model.visual_projection_std")
        problems += [SettingProblem(key, why, given[key]) for key in unread if key in given]
    if problems:
        raise SettingsError(problems)


def _attributed(problems: Sequence[SettingProblem], tree: Tree, given: Mapping[str, str]) -> list[SettingProblem]:
    """Returns problems with what they were given as: under their own key, a group's, or keys of the group they are in.

    A problem of a whole group that the file alone has too is the file's.
    """
    of_file: set[tuple[str, str]] | None = None
    attributed = []
    for one in problems:
        own = [key for key in given if one.key == key or one.key.startswith(f"{key}.")]
        if not own and one.key.endswith(".lr") and "tuner.lr" in given:
            own = ["tuner.lr"]  # of a stack: the first part's
        inner = [key for key in given if key.startswith(f"{one.key}.")]
        if not own and inner:
            of_file = _problems_of(tree) if of_file is None else of_file
            own = [] if _bare(one) in of_file else inner[-1:]
        attributed.append(replace(one, given_as=given[own[0]]) if own else one)
    return attributed


def _bare(problem: SettingProblem) -> tuple[str, str]:
    """Returns key and text without what was given: that of a group is all of it."""
    return problem.key, problem.text.partition(", got ")[0]


def _problems_of(tree: Tree) -> set[tuple[str, str]]:
    try:
        config_from_tree(tree)
    except SettingsError as error:
        return {_bare(one) for one in error.problems}
    return set()


def config_from_tree(tree: Tree, where: str = "") -> TrainConfig:
    """Checks a nested mapping, what it leaves out filled in by the method's recipe and the task's lengths and protocol.

    A run's record has every setting of its time, so that no recipe has a say in it: what came later is at the default
    of its field, which is what was done before.

    Raises:
        ConfigError: As `load_config`; or a protocol is given for a task that has none.
    """
    _refuse_nul(tree, where)
    has_recipe = not is_record(tree)
    tree = with_new_names(tree)
    with _problem_of("task", where):
        tree = _with_declaration(tree)
        task = _task_of(tree)
    tree = {**with_kinds(tree), "task": task.name}
    if isinstance(tree.get("tuner"), dict):
        tree["tuner"] = expand_name(tree["tuner"])
    below = _recipe(tree, is_mix=isinstance(task, TaskMix)) if has_recipe else {}
    if isinstance(tree.get("data", {}), dict):
        lengths = {"max_source_length": task.max_source_length, "max_target_length": task.max_target_length}
        tree = merge({"data": lengths}, tree)
        if task.protocols and tree["data"].get("protocol") is None:
            tree["data"] = {**tree["data"], "protocol": task.protocols[0]}
    try:
        config = _ADAPTER.validate_python(with_nulls(merge(without_replaced(below, tree), tree)))
    except ValidationError as error:
        raise SettingsError([_describe(detail) for detail in _own_errors(error)], where) from None
    with _problem_of("data.protocol", where):
        task.check_protocol(config.data.protocol)
    config.mix.check(config.task_names, where)
    return config


def _recipe(tree: Tree, *, is_mix: bool) -> Tree:
    """Returns the recipe of the method that nested settings name, as settings to lay them over.

    How tasks share the steps is left out where there is one task, and where the settings say each one's share.
    """
    tuner = tree.get("tuner", {"name": DeptConfig().name})
    method = recipe_of(tuner) if isinstance(tuner, dict) else None
    below = {group: dict(settings) for group, settings in method.recipe.items()} if method else {}
    given = tree.get("mix")
    if not is_mix:
        below.pop("mix", None)
    elif "mix" in below and isinstance(given, dict) and given.get("rates") is not None:
        below["mix"] = {key: value for key, value in below["mix"].items() if key == "batches"}
    return below


def _task_of(tree: Tree) -> Task | TaskMix:
    """Returns the task of settings, or the tasks."""
    declaration, name = tree.get("declaration"), str(tree.get("task", TrainConfig().task))
    if declaration is not None:
        return make_task(declaration)
    return find_mix(name) if is_mix(name) else get_task(name)


def _with_declaration(tree: Tree) -> Tree:
    """Returns settings with the task's declaration, checked, where it has one: of the file `task` is, or as given."""
    task, content = tree.get("task"), tree.get("declaration")
    if isinstance(task, str) and is_task_file(task):
        declaration = read_declaration(Path(expand_home(task)))
        return {**tree, "task": declaration.name, "declaration": declaration}
    if content is None:
        return tree
    declaration = content
    if not isinstance(content, TaskDeclaration):
        if not isinstance(content, dict):
            raise ConfigError(f"declaration: expected the fields of a task, got {content!r:.80}")
        declaration = check_declaration(content, "declaration")
    if task not in (None, declaration.name):
        raise ConfigError(f"{task!r}, but the settings declare {declaration.name!r}; leave one of them out")
    return {**tree, "task": declaration.name, "declaration": declaration}


@contextmanager
def _problem_of(key: str, where: str) -> Iterator[None]:
    """Makes what is raised in the block a problem of one setting."""
    try:
        yield
    except ConfigError as error:
        raise SettingsError([SettingProblem(key, str(error).removeprefix(f"{key}: "))], where) from None


def absolute_config(config: TrainConfig) -> TrainConfig:
    """Returns settings as they are recorded: every path from the root on, so that it holds in any folder."""
    return config_from_tree(with_absolute_paths(nested_settings(config)))


def nested_settings(config: TrainConfig) -> Tree:
    """Returns settings as a nested mapping, as a file has them; `config_from_tree` gives an equal object."""
    return cast(Tree, _ADAPTER.dump_python(config, mode="json", by_alias=True))


def _refuse_nul(tree: Tree, where: str, prefix: str = "") -> None:
    """Refuses text with a NUL character: no path or name has one, and the system's own error names no setting."""
    for key, value in tree.items():
        if isinstance(value, dict):
            _refuse_nul(value, where, f"{prefix}{key}.")
        elif isinstance(value, str) and "\0" in value:
            raise SettingsError([SettingProblem(f"{prefix}{key}", f"holds a NUL character: {value!r}")], where)


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    """Returns nested settings by their dotted keys."""
    flat: Tree = {}
    for key, value in tree.items():
        flat |= flat_settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def dump_config(config: TrainConfig) -> str:
    """Returns the resolved settings as YAML; loading it gives an equal object."""
    return yaml.safe_dump(nested_settings(config), sort_keys=False, allow_unicode=True)


def setting_names() -> list[str]:
    """Returns the dotted key of every setting."""
    return list(dict.fromkeys(key for key, _ in fields_of(TrainConfig)))


def describe_settings(is_shown: Callable[[str], bool] = lambda _: True) -> str:
    """Returns a section a group, one line a setting (dotted key, type, default, meaning), for ``--help``.

    Args:
        is_shown: Whether a setting, by its dotted key, is listed.
    """
    groups = {name: str(info.description) for name, info in TrainConfig.__pydantic_fields__.items()}  # type: ignore[attr-defined]
    sections: dict[str, list[str]] = {}
    notes = recipe_notes()
    for key, setting in settings_of(TrainConfig):
        if is_shown(key):
            line = f"{setting.line(key)} ({notes[key]})" if key in notes else setting.line(key)
            sections.setdefault(key.split(".")[0] if "." in key else "", []).append(line)
    titles = {name: f"{name}: {groups[name]}" if name else "the run" for name in sections}
    return "\n\n".join("\n".join([titles[name], *lines]) for name, lines in sections.items())


def _set(tree: Tree, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    if not last or not all(parents):
        raise ConfigError(f"{key!r}: is not the name of a setting; a name is words with dots between, as in tuner.lr")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{key}: {parent!r} was already given as a single value")
    if isinstance(tree.get(last), dict) and not isinstance(value, dict):
        raise ConfigError(f"{key}: is a group of settings; set one of {', '.join(sorted(tree[last]))} in it")
    tree[last] = value


def _shown(value: Any) -> str:
    """Returns a given value, the long ones cut: a message is read by people."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _describe(detail: Mapping[str, Any]) -> SettingProblem:
    location = dotted(detail["loc"])
    given = _shown(detail.get("input"))
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return SettingProblem(location, _describe_unknown(location, given))
    if detail["type"] == "union_tag_invalid":
        return unknown_kind(detail)
    if detail["type"] == "tuple_type":
        return SettingProblem(location, f"should be a list, as [A, B], got {given}")
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return SettingProblem(location, f"{message[0].lower()}{message[1:]}" + (f", got {given}" if location else ""))


def _own_errors(error: ValidationError) -> list[Mapping[str, Any]]:
    """Returns pydantic's errors without a list's that is too short only because an entry of it is wrong."""
    details: list[Mapping[str, Any]] = [dict(detail) for detail in error.errors(include_url=False)]

    def has_inner(place: tuple[int | str, ...]) -> bool:
        return any(other["loc"][: len(place)] == place != other["loc"] for other in details)

    return [one for one in details if one["type"] != "too_short" or not has_inner(one["loc"])]


def _names_of(method: type[TunerSettings]) -> set[str]:
    return {field.name for field in fields(method)}


def _describe_unknown(location: str, given: str) -> str:
    known = setting_names()
    if location in known:
        owners = [name for name, method in METHODS.items() if location.removeprefix("tuner.") in _names_of(method)]
        whose = f"; it is one of {', '.join(owners)}" if location.startswith("tuner.") and owners else ""
        return f"unknown setting of the kind chosen (another has it), given {given}{whose}"
    if location.startswith("tuner.parts."):  # a part has the settings of its method
        part = ".".join(location.split(".")[:3])
        known = [f"{part}.{key.removeprefix('tuner.')}" for key in known if key.startswith("tuner.")]
    near = suggest(location, [*known, *{key.rsplit(".", 1)[0] for key in known if "." in key}])
    elsewhere = [key for key in known if key.rsplit(".", 1)[-1] == location.rsplit(".", 1)[-1]]
    if elsewhere:
        near = f"; did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
    return f"unknown setting, given {given}{near}"
