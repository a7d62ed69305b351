"""Exports as a proxy answers with them, read from their folders and refused where they cannot work. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.language.stored import check_files
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.serving.names import check_name, name_of, split_word
from dept_vl.serving.vllm.layout import EXPORT_FILES, FORMAT, KEYS, SETTINGS_FILE
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_json, read_file
from dept_vl.tasks import Task


@dataclass(frozen=True)
class Export:
    """An export that is to be answered with.

    Attributes:
        name: As requests name it.
        folder: Its folder.
        settings: The content of its ``export.json``.
        task: What it was trained on.
        backbone: Name or folder of its backbone, as it is found here.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    task: Task
    backbone: str

    @property
    def num_images(self) -> int:
        """Images that a request has."""
        return self.task.num_images if self.task.uses_images else 0


def read_exports(words: Sequence[str], backbone: str | None) -> list[Export]:
    """Returns the exports of a command line, all of one backbone: the engine has one.

    Args:
        words: Each an export's folder, or ``NAME=FOLDER``.
        backbone: Folder or hub id of the backbone, in place of the recorded one.

    Raises:
        ConfigError: A name is no name or is taken, or the backbone's files are not here.
        CheckpointError: A folder is no export, of another format, or of another backbone than the first.
    """
    exports: dict[str, Export] = {}
    for word in words:
        given, place = split_word(word)
        folder = Path(place)
        name = given or name_of(place)
        check_name(name, folder)
        if name in exports:
            raise ConfigError(
                f"two adapters are called {name!r}, {exports[name].folder} and {folder}; give one another name: "
                "NAME=EXPORT"
            )
        export = _read(name, folder, backbone)
        for first in list(exports.values())[:1]:
            _check_same_backbone(export, first)
        exports[name] = export
    return list(exports.values())


def _read(name: str, folder: Path, backbone: str | None) -> Export:
    missing = [file for file in (*EXPORT_FILES, RUN_CONFIG_FILE) if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: no export here ({missing[0]} is missing); `dept-vl export --vllm RUN --out FOLDER` writes one"
        )
    path = folder / SETTINGS_FILE
    try:
        settings = parse_json(read_file(path, MAX_SETTINGS_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; export the run again") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        found = settings.get("format") if isinstance(settings, dict) else None
        raise CheckpointError(f"{path}: is of format {found!r}, expected {FORMAT}; export the run again")
    lacking = [key for key in KEYS if key not in settings]
    identity = settings.get("backbone")
    if lacking or not isinstance(identity, dict) or not {"name", "revision", "weights_sha256"} <= identity.keys():
        raise CheckpointError(f"{path}: {(lacking or ['part of backbone'])[0]} is missing; export the run again")
    task = read_run_config(folder, "its folder").resolve_task()
    where, revision = backbone or identity["name"], None if backbone else identity["revision"]
    check_files(where, revision)
    return Export(name, folder, settings, task, where)


def _check_same_backbone(export: Export, first: Export) -> None:
    one, other = first.settings["backbone"], export.settings["backbone"]
    if one["weights_sha256"] != other["weights_sha256"]:
        raise CheckpointError(
            f"{export.folder}: was trained on another backbone than {first.folder} (weights_sha256 "
            f"{one['weights_sha256']!r} and {other['weights_sha256']!r}); one engine has one backbone, so give it "
            "another proxy"
        )


def check_upstream(url: str) -> str:
    """Returns the engine's address without ``/v1`` behind it.

    Raises:
        ConfigError: It is no address of HTTP, or has a user, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        is_named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_plain = not (parts.query or parts.fragment or parts.username is not None)
    except ValueError:  # brackets or a port that are none
        is_named = is_plain = False
    if not (is_named and is_plain and url.isprintable()) or " " in url:
        raise ConfigError(f"--upstream: expected the address of vLLM, such as http://127.0.0.1:8000, got {url!r:.200}")
    return url.rstrip("/").removesuffix("/v1")
