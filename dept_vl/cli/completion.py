"""The command that prints what a shell completes after ``dept-vl``: a static script, which asks nothing later."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from dept_vl.cli.reads import reads
from dept_vl.cli.settings import add_command, read_name, refuse_settings
from dept_vl.system.extras import require_extra

SHELLS = ("bash", "zsh")

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string", "value"})
"""What a setting's kind says that is no value of its own."""

_BASH = """_dept_vl_{name}() {{
  compgen -W {words} -- "$1"
  compgen -d -- "$1"
  compgen -f -X '!*.yaml' -- "$1"
}}"""
"""Names, or YAML files."""


def _add_completion(commands: Any) -> None:
    text = "Print a script by which a shell completes commands, flags, settings, tasks and methods; save it once."
    parser = add_command(commands, "completion", _completion, text, has_settings=False)
    parser.add_argument("shell", choices=SHELLS, help="which shell the script is for")


def _completion(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("completion", overrides)
    require_extra("completion", "`dept-vl completion`")
    print(completion_script(options.shell))


def completion_script(shell: str) -> str:
    """Returns the script for one of `SHELLS`: this version's commands, settings, tasks, methods and shipped files."""
    import shtab

    from dept_vl.cli import make_parser
    from dept_vl.settings.shipped import shipped_configs
    from dept_vl.tasks import task_names

    names = {"tasks": task_names(), "configs": list(shipped_configs())}
    parser, commands = make_parser()
    for name, command in commands.items():
        if command.get_default("reading") is not None:
            _add_settings(name, command)
        for action in command._actions:
            _complete(action, name, names)
    functions = [_BASH.format(name=name, words=f"'{' '.join(words)}'") for name, words in names.items()]
    return str(shtab.complete(parser, shell=shell, preamble="\n".join(functions) if shell == "bash" else ""))


def _add_settings(name: str, command: argparse.ArgumentParser) -> None:
    """Adds every setting that a command reads to its flags, and the values of those that have few."""
    from dept_vl.settings.help import settings_of
    from dept_vl.settings.marked import path_settings
    from dept_vl.settings.schema import TrainConfig

    kinds: dict[str, list[str]] = {}
    for key, setting in settings_of(TrainConfig):
        values = kinds.setdefault(key, [])
        values += ["true", "false"] if setting.kind == "boolean" else setting.kind.replace(",", " | ").split(" | ")
        if "." in key and reads(name, key) and f"--{key}" not in command._option_string_actions:
            command.add_argument(f"--{key}", dest=f"set:{key}", metavar="VALUE", help=setting.text)
    for action in command._actions:
        key = action.dest.removeprefix("set:")
        values = [value for value in dict.fromkeys(kinds.get(key, [])) if value not in _TYPES]
        if key == action.dest:
            continue
        if key in path_settings():
            _set(action, "file")
        elif values:
            action.choices = values


def _complete(action: argparse.Action, command: str, names: Mapping[str, Sequence[str]]) -> None:
    """Says of a flag, or of what stands without one, what it is completed with."""
    is_task = action.dest in ("task", "set:task") or (command == "tasks" and action.dest == "name")
    found = "tasks" if is_task else "configs" if action.dest == "config" else None
    if found is not None:
        words = f"({' '.join(names[found])})"
        _set(action, {"bash": f"_dept_vl_{found}", "zsh": words if is_task else "_files"})
    elif action.type is read_name or getattr(action.type, "__name__", "") == "Path":
        _set(action, "file")


def _set(action: argparse.Action, complete: str | dict[str, str]) -> None:
    """Gives an action the attribute that shtab reads."""
    action.complete = complete  # type: ignore[attr-defined]


COMMANDS = (_add_completion,)
