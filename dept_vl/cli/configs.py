"""The command about the settings files that come with the package."""

from __future__ import annotations

import argparse
from typing import Any

from dept_vl.cli.settings import add_command, refuse_settings


def _add_configs(commands: Any) -> None:
    text = "List the settings files that come with the package, for --config NAME."
    add_command(commands, "configs", _configs, text, has_settings=False)


def _configs(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("configs", overrides)
    from dept_vl.settings.shipped import configs_folder, shipped_configs

    width = max(map(len, shipped_configs()))
    for name, path in shipped_configs().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        print(f"  {name:<{width}}  {first.removeprefix('# ')}")
    print(f"files: {configs_folder()}")


COMMANDS = (_add_configs,)
