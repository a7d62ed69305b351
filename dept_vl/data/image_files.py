"""Finding the file of each COCO image, whatever folders and naming year the copy on disk uses."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dept_vl.errors import DataError

logger = logging.getLogger(__name__)

_OFFICIAL = re.compile(r"^(?:COCO_(?:train|val|test)201[45]_)?([0-9]{12})\.(?:jpe?g|png|webp)$", re.IGNORECASE)


def locate_images(root: Path, official: Mapping[int, str]) -> dict[int, str]:
    """Returns the path of each image relative to `root`, with ``/``.

    An image is looked for at its official path (``val2014/COCO_val2014_000000000042.jpg``); then anywhere below `root`
    by that file name; then by its id, as ``COCO_val2014_000000000042.jpg`` or, in the naming of 2017,
    ``000000000042.jpg``. Of several finds the alphabetically first path is taken, with a warning.

    Args:
        root: The image root.
        official: Image id to official path.

    Raises:
        DataError: Files are missing; the message counts them and names some.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images")
    present = _list_folders(root, {path.split("/")[0] for path in official.values()})
    found = {image_id: path for image_id, path in official.items() if path in present}
    if len(found) < len(official):
        found |= _search(root, {i: path for i, path in official.items() if i not in found})
    missing = [path for image_id, path in official.items() if image_id not in found]
    if missing:
        raise DataError(
            f"{root}: {len(missing):,} of {len(official):,} images are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''} (also looked for by id in every folder below); add them, or leave "
            "the check out to prepare without images"
        )
    return {image_id: found[image_id] for image_id in official}


def _list_folders(root: Path, folders: set[str]) -> set[str]:
    """Returns ``folder/name`` of the files directly in some folders; one listing each instead of a look per image."""
    return {
        f"{folder}/{entry.name}"
        for folder in folders
        if (root / folder).is_dir()
        for entry in os.scandir(root / folder)
        if entry.is_file()
    }


def _search(root: Path, official: Mapping[int, str]) -> dict[int, str]:
    """Looks for images by name, then by id, in every folder below `root`."""
    by_name = {Path(path).name: image_id for image_id, path in official.items()}
    named: dict[int, list[str]] = {}
    numbered: dict[int, list[str]] = {}
    for path in _walk(root):
        name = path.rsplit("/", 1)[-1]
        if name in by_name:
            named.setdefault(by_name[name], []).append(path)
        elif (match := _OFFICIAL.match(name)) and int(match[1]) in official:
            numbered.setdefault(int(match[1]), []).append(path)
    finds = numbered | named
    several = {image_id: sorted(paths) for image_id, paths in finds.items() if len(paths) > 1}
    if several:
        paths = next(iter(several.values()))
        logger.warning(
            "%s: %d images are there more than once and the first was taken, e.g. %s (also %s)",
            root,
            len(several),
            paths[0],
            paths[1],
        )
    return {image_id: min(paths) for image_id, paths in finds.items()}


def _walk(root: Path) -> Iterator[str]:
    """Yields every file below `root`, relative to it; follows links to folders, once each."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        relative = Path(parent).relative_to(root).as_posix()
        for name in names:
            yield name if relative == "." else f"{relative}/{name}"
