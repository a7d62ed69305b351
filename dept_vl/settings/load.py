"""Reading the settings of a run: YAML and dotted overrides in, one immutable ``TrainConfig`` out.

Order of precedence: field defaults < task declaration < YAML file < command line. Loading has no side effects and
imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from dept_vl.errors import ConfigError, DataError
from dept_vl.registry import suggest
from dept_vl.settings.choices import Tree, check_same_kinds, dotted, unknown_kind, with_kinds
from dept_vl.settings.help import settings_of
from dept_vl.settings.renamed import new_key, refuse_both_names, with_new_groups, with_new_names
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_yaml
from dept_vl.system.text_files import read_text
from dept_vl.tasks import get_task
from dept_vl.tuners.stack.config import collapse_name, expand_name

_ADAPTER = TypeAdapter(TrainConfig)


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Reads a YAML file, lays dotted overrides over it and checks the whole once.

    Args:
        path: A YAML file of nested settings, or None for the defaults alone.
        overrides: Dotted key to value, such as ``{"tuner.lr": 0.3}``; these win.

    Raises:
        ConfigError: The file is missing or no YAML mapping, or settings are unknown or invalid. All are reported
            together, each with its dotted key.
    """
    return overlay_config(read_yaml(path) if path else {}, overrides or {}, where=str(path) if path else "")


def overlay_config(tree: Tree, overrides: Mapping[str, Any], where: str = "") -> TrainConfig:
    """Lays dotted overrides over nested settings and checks the whole once.

    Raises:
        ConfigError: As `load_config`.
    """
    refuse_both_names(overrides)
    tree = with_new_groups(tree)
    overlay: Tree = {}
    for key, value in overrides.items():
        _set(overlay, new_key(key), value)
    below, above = tree.get("tuner"), overlay.get("tuner")
    if isinstance(below, dict) and isinstance(above, dict):
        named = {**tree, "tuner": collapse_name(below)}
        check_same_kinds(named, {**overlay, "tuner": collapse_name(above, below)})
        below = expand_name(below)
        tree, overlay = {**tree, "tuner": below}, {**overlay, "tuner": expand_name(above, below)}
    else:
        check_same_kinds(tree, overlay)
    return config_from_tree(_merge(tree, overlay), where=where)


def config_from_tree(tree: Tree, where: str = "") -> TrainConfig:
    """Checks a nested mapping, the task's own lengths and protocol filled in where it gives none.

    Raises:
        ConfigError: As `load_config`; or a protocol is given for a task that has none.
    """
    _refuse_nul(tree)
    tree = with_new_names(tree)
    task = get_task(str(tree.get("task", TrainConfig().task)))
    tree = {**with_kinds(tree), "task": task.name}
    if isinstance(tree.get("data", {}), dict):
        lengths = {"max_source_length": task.max_source_length, "max_target_length": task.max_target_length}
        tree = _merge({"data": lengths}, tree)
        if task.protocols and tree["data"].get("protocol") is None:
            tree["data"] = {**tree["data"], "protocol": task.protocols[0]}
    if isinstance(tree.get("tuner"), dict):
        tree["tuner"] = expand_name(tree["tuner"])
    try:
        config = _ADAPTER.validate_python(tree)
    except ValidationError as error:
        lines = [_describe(detail) for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join(([f"{where}:"] if where else []) + sorted(lines))) from None
    task.check_protocol(config.data.protocol)
    return config


def _refuse_nul(tree: Tree, prefix: str = "") -> None:
    """Refuses text with a NUL character: no path or name has one, and the system's own error names no setting."""
    for key, value in tree.items():
        if isinstance(value, dict):
            _refuse_nul(value, f"{prefix}{key}.")
        elif isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{prefix}{key}: holds a NUL character: {value!r}")


def read_yaml(path: Path) -> Tree:
    """Reads one YAML mapping without checking its keys.

    Raises:
        ConfigError: No such file, not YAML, or not a mapping.
    """
    try:
        tree = parse_yaml(read_text(path, MAX_SETTINGS_BYTES))
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix("cannot be read: ")
        raise ConfigError(f"{path}: cannot read the configuration: {reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(tree).__name__}")
    return cast(Tree, tree)


def dump_config(config: TrainConfig) -> str:
    """Returns the resolved settings as YAML; loading it gives an equal object."""
    tree = _ADAPTER.dump_python(config, mode="json", by_alias=True)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def setting_names() -> list[str]:
    """Returns the dotted key of every setting."""
    return list(dict.fromkeys(key for key, _ in settings_of(TrainConfig)))


def describe_settings() -> str:
    """Returns one line a setting (dotted key, type, default, meaning), for ``--help``."""
    return "\n".join(setting.line(key) for key, setting in settings_of(TrainConfig))


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


def _merge(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _shown(value: Any) -> str:
    """Returns a given value, the long ones cut: a message is read by people."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _describe(detail: Mapping[str, Any]) -> str:
    location = dotted(detail["loc"])
    given = _shown(detail.get("input"))
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = setting_names()
        if location in known:
            return f"{location}: unknown setting of the kind chosen (another has it), given {given}"
        if location.startswith("tuner.parts."):  # a part has the settings of its method
            part = ".".join(location.split(".")[:3])
            known = [f"{part}.{key.removeprefix('tuner.')}" for key in known if key.startswith("tuner.")]
        near = suggest(location, [*known, *{key.rsplit(".", 1)[0] for key in known if "." in key}])
        return f"{location}: unknown setting, given {given}{near}"
    if detail["type"] == "union_tag_invalid":
        return unknown_kind(detail)
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{location}: {message[0].lower()}{message[1:]}, got {given}" if location else message
