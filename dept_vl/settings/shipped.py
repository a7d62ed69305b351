"""The settings files that come with the package: ``configs/`` of the checkout, installed as ``dept_vl/configs``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from dept_vl.errors import ConfigError
from dept_vl.registry import suggest

_PACKAGE = Path(__file__).resolve().parents[1]
_OTHER = ("accelerate/", "paper/bases/")
"""Folders of files that are no settings of a run: accelerate's own, and what several files of the paper extend."""


def configs_folder() -> Path:
    """Returns the folder they lie in: beside the package in a checkout, in it once installed."""
    installed, checkout = _PACKAGE / "configs", _PACKAGE.parent / "configs"
    return installed if installed.is_dir() else checkout


@cache
def shipped_configs() -> Mapping[str, Path]:
    """Returns every file by its name: ``vqa/dept``, ``paper/table3/dept/vqa``, ``sweeps/paper``, ..."""
    root = configs_folder()
    found = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}
    return {name: path for name, path in found.items() if not name.startswith(_OTHER)}


def find_config(path: Path) -> Path:
    """Returns the settings file that was named: a path, or a name as `shipped_configs` has it.

    ``configs/vqa/dept.yaml`` names the shipped file where there is no such path, outside a checkout.

    Raises:
        ConfigError: There is neither; near names are named.
    """
    if path.exists() or path.is_symlink():
        return path
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    known = shipped_configs()
    if name in known:
        return known[name]
    raise ConfigError(
        f"{path}: cannot read the configuration: no such file, and no name that `dept-vl configs` lists"
        f"{suggest(name, known)}"
    )
