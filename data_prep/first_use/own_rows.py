"""Rows of one's own, prepared and their images encoded on first use, for runs that name the rows and no data folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.converters.rows import prepare_records
from data_prep.first_use.cache import cache_root, making, refuse_making
from data_prep.prepare import prepare
from data_prep.raw.row_sources import as_list, is_saved_data_set, of_records, open_rows
from dept_vl.data.feature_format import differences, finished_stores, read_index
from dept_vl.data.image_files import IMAGE_SUFFIXES, walk_files
from dept_vl.data.manifest import split_images, split_path, task_folder
from dept_vl.errors import ConfigError
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import hash_file
from dept_vl.tasks import Task
from dept_vl.tasks.splits import SPLITS

logger = logging.getLogger(__name__)

_FEATURES = "features"
_COMMAND = "`dept-vl cache-features` with the same --task, --rows and --images"
_TEXT_COMMAND = "`dept-vl prepare` (and give --data-dir instead of the rows)"


def rows_data_dir(config: TrainConfig, *, may_make: bool = True) -> Path:
    """Returns the data folder of ``data.rows``, made on first use.

    It lies in ``own`` in ``$DEPT_VL_CACHE``, by default ``~/.cache/dept_vl``, under a name that depends on the
    declaration, the rows' content and the images' names, sizes and times: other rows get a folder of their own. All
    share one feature store an encoder, as a picture's number is made from its content.

    Args:
        config: The run's settings.
        may_make: Whether what is not there is made.

    Raises:
        NotMadeError: It is not there, and nothing may be made.
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
    file, root = Path(rows), images
    if root is None and file.exists():
        root = file if file.is_dir() else file.parent
    listing = _listing(root) if root is not None and task.uses_images else []
    key = [_content(file, task) if file.exists() else rows, listing]
    return _made(config, task, key, lambda out: prepare(task, None, out, rows=rows, images=images), may_make)


def records_data_dir(config: TrainConfig, rows: Any, images: Path | None) -> Path:
    """Returns the data folder of rows in memory, made on first use, as `rows_data_dir` does for files.

    Args:
        config: The run's settings, of a task that is declared for rows of one's own.
        rows: Rows, or our split -> its rows, as `prepare_records` takes them.
        images: What names of images start from; None: they are paths of files, from the current folder on.

    Raises:
        ConfigError: The task is not declared for rows of one's own.
        DataError: As `rows_data_dir`.
    """
    task = config.resolve_task()
    assert task.declaration is not None
    of_records(rows, task.declaration.split.names)  # refuses what holds no rows
    parts = rows if isinstance(rows, Mapping) else {"": rows}
    key = {split: _digest(as_list(part), task, images or Path()) for split, part in parts.items()}
    return _made(config, task, key, lambda out: prepare_records(task, rows, out, images=images))


def _made(config: TrainConfig, task: Task, key: object, make: Callable[[Path], object], may_make: bool = True) -> Path:
    """Returns the folder of a task's prepared rows in the cache, with the features that a run reads.

    Args:
        config: The run's settings.
        task: Its task.
        key: What the rows are made from, as JSON can say it; the folder's name depends on it and on the declaration.
        make: Prepares the rows into a folder.
        may_make: Whether rows are prepared and images encoded here.
    """
    assert task.declaration is not None
    text = json.dumps([task.declaration.rows_key(), key], sort_keys=True)
    root = cache_root() / "own"
    folder = root / f"{task.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not task_folder(folder, task).is_dir():
        refuse_making(folder, _COMMAND if task.uses_images else _TEXT_COMMAND, may_make=may_make)
        with making(folder, "prepare the rows", ", or prepare them with `dept-vl prepare` and give --data-dir"):
            if not task_folder(folder, task).is_dir():
                logger.info("preparing the rows of %s into %s (once)", task.name, folder)
                make(folder)
            if not (folder / _FEATURES).exists():
                (root / _FEATURES).mkdir(exist_ok=True)
                (folder / _FEATURES).symlink_to(Path("..") / _FEATURES)
    _encode_if_read(config, task, folder, may_make)
    return folder


def _encode_if_read(config: TrainConfig, task: Task, folder: Path, may_make: bool) -> None:
    """Adds the features of the task's images, where the run reads features that are not there yet."""
    if not task.uses_images or config.data.visual_features == "encode" or config.data.feature_dir is not None:
        return
    if has_own_image_encoder(config):
        return
    splits = [split for split in SPLITS if split_path(folder, task, split).is_file()]
    images = set().union(*(split_images(folder, task, split) for split in splits))
    encoder = config.model.image_encoder
    wanted = encoder.known_fingerprint()
    for store in finished_stores(folder):
        index = read_index(store)
        stored = {image_id for shard in index.shards for image_id in shard.image_ids}
        if not differences(index.fingerprint, wanted) and images <= stored | index.skipped.keys():
            return
    refuse_making(folder, _COMMAND, may_make=may_make)
    from data_prep.cache_features import cache_features  # imports torch

    cache_features(encoder, folder, task, on_error=config.data.on_image_error)


def _content(rows: Path, task: Task) -> list[list[str]]:
    """Returns the files that rows are read from, with their hashes; pictures beside them are `_listing`'s."""
    assert task.declaration is not None
    if not rows.is_dir():
        return [["", hash_file(rows)]]
    if is_saved_data_set(rows):
        found = {path: hash_file(path) for path in rows.rglob("*") if path.suffix in (".arrow", ".json")}
    else:
        found = {file.path: file.sha256 for file in open_rows(rows, task.declaration.split.names).files}
    return [[path.relative_to(rows).as_posix(), digest] for path, digest in sorted(found.items())]


def _digest(rows: Iterable[Any], task: Task, root: Path) -> str:
    """Returns a sha256 of rows in memory: of their values, their pictures, and the size and time of files they name."""
    assert task.declaration is not None
    digest, encode = hashlib.sha256(), json.JSONEncoder(sort_keys=True, default=_described).encode
    names: dict[str, None] = {}
    for row in rows:
        digest.update(encode(row).encode())
        for column in task.declaration.images if isinstance(row, Mapping) else ():
            image = row.get(column)
            if isinstance(image, str | os.PathLike):
                names[os.fspath(image)] = None
    for number, name in enumerate(names):
        with suppress(OSError, ValueError):  # no file's name
            status = os.stat(root / name)
            digest.update(f" {number} {status.st_size} {status.st_mtime_ns}".encode())
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
    """Returns every file below a root that may be an image, with its size and time: by its suffix, or as it has none.

    What else lies there does not count (runs, notes, hidden folders): a run in it would have the rows prepared again.
    """
    found: list[list[str | int]] = [[str(images.resolve()), 0, 0]]
    for path in sorted(walk_files(images)):
        bare = "/." not in f"/{path}" and "." not in path.rpartition("/")[2]
        if bare or path.lower().endswith(IMAGE_SUFFIXES):
            with suppress(FileNotFoundError):  # a link that leads nowhere
                status = os.stat(f"{images}/{path}")
                found.append([path, status.st_size, status.st_mtime_ns])
    return found
