"""The folder of an experiment: who may start or go on in it, and the settings it is stamped with.

Refusing imports no torch, so that a taken folder is refused at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dept_vl.errors import ConfigError
from dept_vl.runs.folder import describe_other, refuse_differences
from dept_vl.settings.load import config_from_tree, nested_settings
from dept_vl.settings.marked import with_absolute_paths
from dept_vl.settings.renamed import with_new_names
from dept_vl.settings.schema import TrainConfig
from dept_vl.settings.yaml_files import read_yaml
from dept_vl.system.atomic import atomic_folder, remove_folder, write_text
from dept_vl.system.locks import refuse_if_used_inside
from dept_vl.system.signals import mark_resumable


def check_experiment(folder: Path, name: str, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Refuses a folder that an experiment can neither be started nor gone on with in; changes nothing.

    Args:
        folder: The experiment's folder; its runs lie in it.
        name: Its settings are in ``<name>.yaml``.
        settings: What the experiment is; a resumed one must be the same.
        resume: Go on in the folder.
        overwrite: Remove an earlier experiment of that kind first.

    Raises:
        ConfigError: The folder is taken and neither was asked for, is not such an experiment's, has other settings, or
            is in use.
    """
    marker = folder / f"{name}.yaml"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; choose a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not marker.is_file():
            raise ConfigError(f"output_dir: {folder} is not empty and {describe_other(folder, name)}")
        if resume:
            refuse_differences(folder, _comparable(read_yaml(marker), marker), _comparable(settings, marker))
            return
        if not overwrite:
            raise ConfigError(
                f"output_dir: {folder} is not empty; add --resume to go on with the {name} in it, --overwrite to "
                "replace it, or choose another --output-dir"
            )
        refuse_if_used_inside(folder)


def open_experiment(folder: Path, name: str, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Makes the folder of an experiment, stamped with its settings, or goes on in the one that is there.

    Arguments and errors are those of `check_experiment`; the settings go to ``<name>.yaml``.
    """
    from dept_vl.system.processes import process_state  # imports torch

    if not process_state().is_main_process:
        return
    mark_resumable()
    check_experiment(folder, name, settings, resume=resume, overwrite=overwrite)
    marker = folder / f"{name}.yaml"
    if resume and marker.is_file():
        return
    if folder.is_dir() and any(folder.iterdir()):
        remove_folder(folder)
    with atomic_folder(folder) as building:
        write_text(building / marker.name, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def settings_tree(config: TrainConfig) -> dict[str, Any]:
    """Returns settings as an experiment records them: without where they go, which a moved folder changes."""
    return _placeless(with_absolute_paths(nested_settings(config)))


def _placeless(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != "output_dir"}


def _comparable(record: Mapping[str, Any], marker: Path) -> dict[str, Any]:
    """Returns what an experiment is, of this version or an earlier one, as it is compared.

    A transfer's sources are settings too, or the folders of runs.
    """
    if "settings" in record:  # a sweep's: what its file says
        return with_new_names(dict(record))
    own = _complete({key: value for key, value in record.items() if key != "sources"}, marker)
    sources = record.get("sources")
    if not isinstance(sources, dict):
        return own
    named = {
        name: _complete(given, marker) if isinstance(given, dict) else os.path.realpath(str(given))
        for name, given in sources.items()
    }
    return {**own, "sources": named}


def _complete(record: dict[str, Any], marker: Path) -> dict[str, Any]:
    """Returns recorded settings with those that came later at their defaults, with which they were made."""
    return _placeless(nested_settings(config_from_tree(record, where=str(marker))))
