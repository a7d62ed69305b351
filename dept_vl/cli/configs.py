"""The command about the settings files that come with the package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from dept_vl.cli.settings import add_command, refuse_settings

_METHOD = "method"
"""Name of the file that the others of its folder extend: one with the settings of a row of the paper."""


def _add_configs(commands: Any) -> None:
    text = "List the settings files that come with the package, for --config NAME."
    parser = add_command(commands, "configs", _configs, text, has_settings=False)
    parser.add_argument(
        "--schema", action="store_true",
        help="print the JSON Schema of a settings file instead, by which editors complete and check one",
    )  # fmt: skip


def _configs(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("configs", overrides)
    if options.schema:
        from dept_vl.experiments.space import SweepConfig
        from dept_vl.settings.json_schema import settings_schema

        print(json.dumps(settings_schema({"sweep": SweepConfig}), indent=2))
        return
    from dept_vl.settings.shipped import configs_folder, shipped_configs

    folders: dict[str, list[str]] = {}
    for name in shipped_configs():
        folder, _, own = name.rpartition("/")
        folders.setdefault(folder, []).append(own)
    lines = [line for folder, names in folders.items() for line in _lines(folder, names)]
    width = max(len(name) for name, _ in lines)
    for name, about in lines:
        print(f"  {name:<{width}}  {about}")
    print(f"files: {configs_folder()}")


def _lines(folder: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the files of a folder with their first lines; those of a row of the paper as one, with its tasks."""
    from dept_vl.settings.shipped import shipped_configs

    def about(name: str) -> str:
        return shipped_configs()[f"{folder}/{name}"].read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")

    if _METHOD not in names:
        return [(f"{folder}/{name}", about(name)) for name in names]
    tasks = [name for name in names if name != _METHOD]
    return [(f"{folder}/NAME", f"{about(_METHOD)} NAME: {', '.join([*tasks, _METHOD])}")]


COMMANDS = (_add_configs,)
