"""Rows of one's own, prepared and their images encoded on first use, for runs that name the rows and no data folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from data_prep.converters.rows import prepare_records
from data_prep.prepare import prepare
from data_prep.raw.json_files import CACHE_VARIABLE, cache_root
from data_prep.raw.row_sources import as_list, of_records
from dept_vl.data.feature_format import differences, finished_stores, hash_file, read_index
from dept_vl.data.manifest import task_folder
from dept_vl.errors import ConfigError, DataError
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.launch import is_one_of_several
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)

_FEATURES = "features"


def rows_data_dir(config: TrainConfig) -> Path:
    """Returns the data folder of ``data.rows``, made on first use.

    It lies in ``own`` in ``$DEPT_VL_CACHE``, by default ``~/.cache/dept_vl``, under a name that depends on the
    declaration, the rows' content and the images' names, sizes and times: other rows get a folder of their own. All
    share one feature store an encoder, as a picture's number is made from its content.

    Raises:
        ConfigError: The task is not declared for rows of one's own.
        DataError: Rows or images are not there or break a rule, or several processes were launched before the folder
            was made.
    """
    task, rows = config.resolve_task(), str(config.data.rows)
    if not task.is_own:
        raise ConfigError(
            f"data.rows: task {task.name!r} has files of its own, which `dept-vl prepare --raw` reads; rows belong to "
            "a task that a YAML file declares without `format`"
        )
    images = Path(config.data.image_dir) if config.data.image_dir else None
    file = Path(rows)
    content = _content(file) if file.exists() else rows
    beside = (file if file.is_dir() else file.parent) if file.exists() else None
    root = images or beside
    key = [content, _listing(root) if root is not None and task.uses_images else []]

    def make(out: Path) -> None:
        prepare(task, None, out, rows=rows, images=images)

    folder = own_data_dir(task, key, make)
    _encode_if_read(config, task, folder)
    return folder


def records_data_dir(config: TrainConfig, rows: Any, images: Path | None) -> Path:
    """Returns the data folder of rows in memory, made on first use, as `rows_data_dir` does for files.

    Args:
        config: The run's settings, of a task that is declared for rows of one's own.
        rows: Rows, or our split -> its rows, as `prepare_records` takes them.
        images: What names of images start from; None: they are paths of files, from the current folder on.

    Raises:
        DataError: As `rows_data_dir`.
    """
    task = config.resolve_task()
    assert task.declaration is not None
    of_records(rows, task.declaration.split.names)  # refuses what holds no rows
    parts = rows if isinstance(rows, Mapping) else {"": rows}
    key = {split: _digest(as_list(part), task, images or Path()) for split, part in parts.items()}
    folder = own_data_dir(task, key, lambda out: prepare_records(task, rows, out, images=images))
    _encode_if_read(config, task, folder)
    return folder


def own_data_dir(task: Task, key: object, make: Callable[[Path], object]) -> Path:
    """Returns the folder of a task's prepared rows in the cache, made on the first call.

    Args:
        task: A task that is declared for rows of one's own.
        key: What the rows are made from, as JSON can say it; the folder's name depends on it and on the declaration.
        make: Prepares the rows into a folder.

    Raises:
        DataError: As `rows_data_dir`.
    """
    assert task.declaration is not None
    text = json.dumps([task.declaration.rows_key(), key], sort_keys=True)
    root = cache_root() / "own"
    folder = root / f"{task.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if task_folder(folder, task).is_dir():
        return folder
    _refuse_launch(folder, task)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not task_folder(folder, task).is_dir():
                logger.info("preparing the rows of %s into %s (once)", task.name, folder)
                make(folder)
            if not (folder / _FEATURES).exists():
                (root / _FEATURES).mkdir(exist_ok=True)
                (folder / _FEATURES).symlink_to(Path("..") / _FEATURES)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot prepare the rows: {error.strerror or error}; set {CACHE_VARIABLE} to a folder that can "
            "be written, or prepare them with `dept-vl prepare` and give --data-dir"
        ) from error
    return folder


def _encode_if_read(config: TrainConfig, task: Task, folder: Path) -> None:
    """Adds the features of the task's images, where the run reads features that are not there yet."""
    if not task.uses_images or config.data.visual_features == "encode" or config.data.feature_dir is not None:
        return
    from data_prep.cache_features import cache_features, collect_images

    images, encoder = collect_images(folder, task), config.model.image_encoder
    wanted = encoder.known_fingerprint()
    for store in finished_stores(folder):
        index = read_index(store)
        stored = {image_id for shard in index.shards for image_id in shard.image_ids}
        if not differences(index.fingerprint, wanted) and images.keys() <= stored | index.skipped.keys():
            return
    _refuse_launch(folder, task)
    cache_features(encoder, folder, task, on_error=config.data.on_image_error)


def _refuse_launch(folder: Path, task: Task) -> None:
    if is_one_of_several():
        remedy = (
            "run `dept-vl cache-features` with the same --task, --rows and --images without a launcher first"
            if task.uses_images
            else "prepare the rows with `dept-vl prepare` first, and give --data-dir instead of them"
        )
        raise DataError(f"{folder}: not made yet, and one process makes it; {remedy}")


def _content(rows: Path) -> list[list[str]]:
    """Returns the files of rows with their hashes."""
    files = sorted(path for path in rows.rglob("*") if path.is_file()) if rows.is_dir() else [rows]
    return [[path.relative_to(rows).as_posix() if path != rows else "", hash_file(path)] for path in files]


def _digest(rows: Iterable[Any], task: Task, root: Path) -> str:
    """Returns a sha256 of rows in memory: of their values, their pictures, and the size and time of files they name."""
    assert task.declaration is not None
    digest = hashlib.sha256()
    for row in rows:
        image = row.get(task.declaration.image) if isinstance(row, Mapping) else None
        digest.update(json.dumps(row, sort_keys=True, default=_described).encode())
        if isinstance(image, str | os.PathLike) and (root / image).is_file():
            status = os.stat(root / image)
            digest.update(f" {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _described(value: Any) -> Any:
    """Returns what stands for a value that is no JSON."""
    if isinstance(value, Image.Image):
        try:
            return [value.mode, value.size, hashlib.sha256(value.tobytes()).hexdigest()]
        except (OSError, ValueError) as error:  # closed, or cut short: refused with its place when it is read
            return str(error)
    if isinstance(value, bytes | bytearray):
        return hashlib.sha256(value).hexdigest()
    return str(value)


def _listing(images: Path) -> list[list[str | int]]:
    """Returns every file below the images' root with its size and time."""
    found: list[list[str | int]] = [[str(images.resolve()), 0, 0]]
    for parent, folders, names in os.walk(images, followlinks=True):
        folders.sort()
        for name in sorted(names):
            status = os.stat(Path(parent, name))
            found.append([str(Path(parent, name).relative_to(images)), status.st_size, status.st_mtime_ns])
    return found
