"""Reading the YAML files of people: settings, and declarations of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from dept_vl.errors import ConfigError, DataError, shown
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_yaml
from dept_vl.system.text_files import read_text


def read_yaml(path: Path, what: str = "the configuration", expected: str = "a mapping of settings") -> dict[str, Any]:
    """Reads one YAML mapping without checking its keys; an empty file holds none.

    Args:
        path: The file.
        what: What it is, for the message.
        expected: What it should hold, for the message.

    Raises:
        ConfigError: No such file, not YAML, or not a mapping.
    """
    try:
        tree = parse_yaml(read_text(path, MAX_SETTINGS_BYTES))
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix("cannot be read: ")
        raise ConfigError(f"{path}: cannot read {what}: {reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected {expected}, got {shown(tree)}")
    return cast(dict[str, Any], tree or {})
