"""Finding image files: those in a folder, and each COCO image whatever folders and naming year the copy uses."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dept_vl.errors import DataError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LITTER = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})
_OFFICIAL = re.compile(r"^(?:COCO_(?:train|val|test)201[45]_)?([0-9]{12})\.(?:jpe?g|png|webp)$", re.IGNORECASE)
_NUMBER = re.compile(r"^(?:COCO_(?:train|val|test)201[45]_)?([0-9]{1,12})\.(?:jpe?g|png|webp)$", re.IGNORECASE)


@dataclass(frozen=True)
class FolderImages:
    """What a folder holds: its images, and what is left out.

    Attributes:
        images: In order of their paths.
        left_out: Why, in words, to the paths of other files below the folder.
    """

    images: list[Path]
    left_out: dict[str, list[str]]

    def notes(self) -> list[str]:
        """Returns a line for each kind of file that is left out: how many, the first names, and why."""
        return [
            f"{len(names):,} file{'s' if len(names) > 1 else ''} left out: {why} "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for why, names in self.left_out.items()
        ]


def list_images(folder: Path) -> FolderImages:
    """Finds the images in a folder and in all below it, links to folders not followed.

    An image is what is called one, or begins like one. What begins with a dot is no image of the user's: macOS writes
    a ``._a.jpg`` beside each ``a.jpg`` that it copies.
    """
    images: list[Path] = []
    left_out: dict[str, list[str]] = {}
    for parent, folders, names in os.walk(folder):
        place = Path(parent)
        hidden = {name for name in folders if name.startswith(".") or name in _LITTER}
        folders[:] = sorted(set(folders) - hidden)
        for name in (*sorted(hidden), *sorted(names)):
            path = place / name
            if name.startswith("."):
                why = "hidden, as their names begin with a dot"
            elif name in _LITTER:
                why = "written by a file manager or an archiver"
            elif path.suffix.lower() in IMAGE_SUFFIXES or _begins_like_an_image(path):
                images.append(path)
                continue
            else:
                why = f"not {', '.join(IMAGE_SUFFIXES[:-1])} or {IMAGE_SUFFIXES[-1]}"
            left_out.setdefault(why, []).append(path.relative_to(folder).as_posix())
    return FolderImages(sorted(images), left_out)


def _begins_like_an_image(path: Path) -> bool:
    """Returns whether a file without an image's suffix begins with the bytes of a JPEG, PNG or WebP."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return image_suffix(file.read(12)) is not None
    except OSError:
        return False


def image_suffix(content: bytes) -> str | None:
    """Returns what the name of a JPEG, PNG or WebP ends in, by the file's first 12 bytes; None for others."""
    if content.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    return ".webp" if (content[:4], content[8:12]) == (b"RIFF", b"WEBP") else None


def image_below(root: Path | None, path: str) -> Path:
    """Returns where an image lies that a row names.

    Args:
        root: The folder that its path starts from; None where nothing says it.
        path: As the row has it, which may be a stranger's.

    Raises:
        DataError: Nothing says where, or it would be outside the folder.
    """
    if root is None:
        raise DataError(f"{path}: nothing says where the images lie")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"{path}: leads out of the folder of the images")
    return root / path


def coco_image_id(name: str) -> int | None:
    """Returns the image id in a file's name as COCO writes it, such as ``COCO_val2014_000000000042.jpg``."""
    match = _OFFICIAL.match(name)
    return int(match[1]) if match else None


def locate_images(root: Path, official: Mapping[int, str]) -> dict[int, str]:
    """Returns the path of each image relative to `root`, with ``/``, as `find_images` finds it.

    Raises:
        DataError: Files are missing; the message counts them and names some.
    """
    found = find_images(root, official)
    missing = [path for image_id, path in official.items() if image_id not in found]
    if missing:
        raise DataError(
            f"{root}: {len(missing):,} of {len(official):,} images are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''} (also looked for by id in every folder below); add them, or leave "
            "the check out to prepare without images"
        )
    return {image_id: found[image_id] for image_id in official}


def find_images(root: Path, official: Mapping[int, str], *, by_number: bool = False) -> dict[int, str]:
    """Returns the path of each image that is there, relative to `root`, with ``/``.

    An image is looked for at its official path (``val2014/COCO_val2014_000000000042.jpg``); then anywhere below `root`
    by that file name; then by its id, as ``COCO_val2014_000000000042.jpg`` or, in the naming of 2017,
    ``000000000042.jpg``. Of several finds the alphabetically first path is taken, with a warning.

    Args:
        root: The image root.
        official: Image id to official path.
        by_number: Whether a file named with the id alone, ``42.jpg``, is the image too.

    Raises:
        DataError: There is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of images")
    present = _list_folders(root, {path.split("/")[0] for path in official.values()})
    found = {image_id: path for image_id, path in official.items() if path in present}
    if len(found) < len(official):
        rest = {i: path for i, path in official.items() if i not in found}
        found |= _search(root, rest, _NUMBER if by_number else _OFFICIAL)
    return found


def _list_folders(root: Path, folders: set[str]) -> set[str]:
    """Returns ``folder/name`` of the files directly in some folders; one listing each instead of a look per image."""
    return {
        f"{folder}/{entry.name}"
        for folder in folders
        if (root / folder).is_dir()
        for entry in os.scandir(root / folder)
        if entry.is_file()
    }


def _search(root: Path, official: Mapping[int, str], numbered_as: re.Pattern[str]) -> dict[int, str]:
    """Looks for images by name, then by id, in every folder below `root`."""
    by_name = {Path(path).name: image_id for image_id, path in official.items()}
    named: dict[int, list[str]] = {}
    numbered: dict[int, list[str]] = {}
    for path in walk_files(root):
        name = path.rsplit("/", 1)[-1]
        if name in by_name:
            named.setdefault(by_name[name], []).append(path)
        elif (match := numbered_as.match(name)) and int(match[1]) in official:
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


def walk_files(root: Path) -> Iterator[str]:
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
