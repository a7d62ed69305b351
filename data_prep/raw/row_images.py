"""The images of rows: files that are named, and pictures that lie in the rows themselves.

An image is what its bytes are: its number is made of the sha256 of its file, so that one picture under two names is one
image, and features that are stored under the number serve every task with that picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.raw.image_names import ImageNames, short_name
from data_prep.raw.row_values import read_text
from dept_vl.data.image_files import image_suffix
from dept_vl.data.images import MAX_PIXELS, open_image
from dept_vl.errors import DataError, shown
from dept_vl.system.bounded_reading import hash_file
from dept_vl.system.progress import Meter

MAX_BYTES = 256 << 20
"""Largest picture taken out of a row; that of 50 million pixels, which is the most that is decoded, is smaller."""

_THREADS = 4
_FILES_PER_CALL = 64  # of a thread, whose call costs as much as a small file
_SHOWN = 5
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True)
class RowImage:
    """One image.

    Attributes:
        path: Relative to the image root, with ``/``.
        image_id: From 0 to 2^63 - 1.
    """

    path: str
    image_id: int


@dataclass
class ImageColumn:
    """The images that rows name or hold, each once, in order of first appearance.

    Attributes:
        root: What names start from; None: they are paths of files, and `resolve` sets the folder that has them all.
    """

    root: Path | None
    _index: dict[str, int] = field(default_factory=dict)
    _places: list[str] = field(default_factory=list)
    _ids: dict[int, int] = field(default_factory=dict)
    _held: dict[str, None] = field(default_factory=dict)

    def add(self, value: Any, place: str, image_id: int | None = None) -> int | None:
        """Returns the number of a row's image, from 0; None where the row has none.

        Args:
            value: A name, or a picture: bytes, an object of ``bytes`` and ``path`` as `datasets` has it, a PIL image.
            place: The row's, for messages.
            image_id: The image's own, of official files.

        Raises:
            DataError: It is something else, or a picture that is not JPEG, PNG or WebP.
        """
        if isinstance(value, str) or value is None:  # nearly all, and the quickest to tell
            key = read_text(value)
        elif isinstance(value, os.PathLike):
            key = read_text(os.fspath(value))
        elif (content := image_content(value, self.root)) is None:
            return None
        elif isinstance(content, str):
            key = content
        else:
            key = _held_name(content)
            self._held[key] = None
        if not key:
            return None
        if key not in self._index:
            self._index[key] = len(self._index)
            self._places.append(place)
        number = self._index[key]
        if image_id is not None and self._ids.setdefault(number, image_id) != image_id:
            raise DataError(f"image {key!r} has id {image_id} here and {self._ids[number]} above")
        return number

    @property
    def is_held(self) -> bool:
        """Whether the pictures lie in the rows, and are to be written out."""
        return bool(self._held)

    def names(self) -> list[str]:
        """Returns what the rows call every image, by its number."""
        return list(self._index)

    def resolve(self, *, is_checked: bool = True, may_miss: bool = False) -> list[RowImage | None]:
        """Returns every image, by its number.

        Args:
            is_checked: Whether files are looked for; if not, rows bring ids, and names stay as they are.
            may_miss: Whether images that are not there are None, instead of an error.

        Raises:
            DataError: Names and pictures are mixed; a name is none of an image of the root, or of several.
        """
        if self._held:
            return self._resolve_held()
        if not is_checked:
            if len(self._ids) < len(self._index):
                raise DataError(
                    "--no-image-check: an image's number is made of its file, which must be there; leave it out"
                )
            return [RowImage(name, self._ids[number]) for name, number in self._index.items()]
        paths = self._of_files() if self.root is None else self._locate(self.root, may_miss)
        assert self.root is not None
        if self._ids:
            return [None if path is None else RowImage(path, self._ids[n]) for n, path in enumerate(paths)]
        digests = _hash_files(self.root, sorted({path for path in paths if path is not None}))
        first: dict[str, str] = {}
        for path, digest in digests.items():
            first.setdefault(digest, path)
        return [None if path is None else RowImage(first[digests[path]], image_number(digests[path])) for path in paths]

    def write_held(self, folder: Path, values: Iterator[Any]) -> None:
        """Writes the pictures that lie in rows into a new folder, each once; `values` are those that were added."""
        folder.mkdir()
        waiting = set(self._held)
        with Meter(len(waiting), "writing images", "images") as meter:
            for value in values:
                if not waiting:
                    return
                is_named = isinstance(value, str | os.PathLike) or value is None
                content = None if is_named else image_content(value, self.root)
                if isinstance(content, bytes):
                    key = _held_name(content)
                    if key in waiting:
                        waiting.remove(key)
                        (folder / key).write_bytes(content)
                        meter.add()

    def _resolve_held(self) -> list[RowImage | None]:
        named = next((name for name in self._index if name not in self._held), None)
        if named is not None:
            place = self._places[self._index[named]]
            raise DataError(f"{place}: names the image {named!r}, and other rows hold pictures; give all in one way")
        return [RowImage(name, image_number(name)) for name in self._held]

    def _of_files(self) -> list[str | None]:
        """Returns the path of every image below the folder that has them all, which becomes the root."""
        files = [os.path.abspath(os.path.expanduser(name)) for name in self._index]
        for file, name, place in zip(files, self._index, self._places, strict=True):
            if not os.path.isfile(file):
                raise DataError(
                    f"{place}: image {short_name(name)}: no such file; give the folder of the images as images=, or "
                    "whole paths"
                )
        self.root = Path(os.path.commonpath([os.path.dirname(file) for file in files]) if files else ".")
        return [Path(os.path.relpath(file, self.root)).as_posix() for file in files]

    def _locate(self, root: Path, may_miss: bool) -> list[str | None]:
        """Returns the path of every image, None where it is not there."""
        if not root.is_dir():
            raise DataError(f"{root}: no such folder of images")
        names = ImageNames(root)
        paths = []
        for name, place in zip(self._index, self._places, strict=True):
            try:
                paths.append(names.find(name))
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
        missing = [name for name, path in zip(self._index, paths, strict=True) if path is None]
        if missing and (not may_miss or len(missing) == len(paths)):
            place = self._places[self._index[missing[0]]]
            raise DataError(
                f"{place}: image {short_name(missing[0])} is not in {root}, where {names.count():,} images are"
                f"{names.near(missing[0])}; {len(missing):,} of {len(paths):,} images are missing: "
                f"{', '.join(map(short_name, missing[:_SHOWN]))}{', ...' if len(missing) > _SHOWN else ''} (looked for "
                "at their path, then by name and by number in every folder below); --images (in Python images=) names "
                "another folder" + ("" if may_miss else ", --skip-missing-images leaves such rows out")
            )
        return paths


def image_number(digest: str) -> int:
    """Returns an image's number, from 0 to 2^63 - 1: the first 63 bits of its file's sha256, given in hexadecimal.

    What stands behind these bits, such as the end of a file's name, does not count.
    """
    return int(digest[:16], 16) >> 1


def _hash_files(root: Path, paths: Sequence[str]) -> Mapping[str, str]:
    """Returns the sha256 of some files, in the order of their paths."""

    def digest(path: str) -> str:
        try:
            if os.stat(root / path).st_size == 0:
                raise DataError(f"{root / path}: the image file is empty; fetch it again")
            return hash_file(root / path)
        except OSError as error:
            raise DataError(f"{root / path}: the image cannot be read: {error.strerror}") from error

    parts = [paths[start : start + _FILES_PER_CALL] for start in range(0, len(paths), _FILES_PER_CALL)]
    found: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS) as pool, Meter(len(paths), "reading images", "images") as meter:
        for part, digests in zip(parts, pool.map(lambda part: list(map(digest, part)), parts), strict=True):
            found |= zip(part, digests, strict=True)
            meter.add(len(part))
    return found


def image_content(value: Any, root: Path | None) -> bytes | str | None:
    """Returns the file of a picture that lies in a row, or its name where it is a file below the root.

    Args:
        value: As `ImageColumn.add` takes it, but no name.
        root: What names start from; None where a file of which the path is given is read.

    Raises:
        DataError: It is no picture, or cannot be read.
    """
    if isinstance(value, Image.Image):
        return _png(value)
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        content, path = value.get("bytes"), value.get("path")
        if content is None and path is not None:
            if root is None or not Path(path).resolve().is_relative_to(root.resolve()):
                return _checked(_read(Path(path)))
            return Path(path).resolve().relative_to(root.resolve()).as_posix()
        value = content
        if value is None:
            return None
    if isinstance(value, bytes | bytearray):
        return _checked(bytes(value))
    if isinstance(value, int | float | np.generic):
        return read_text(value)
    raise DataError(f"image should be a file's name, bytes or a PIL image, found {shown(value)}")


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"image {path}: cannot be read: {error.strerror}") from error


def _checked(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise DataError(f"image of more than {MAX_BYTES:,} bytes; scale it down")
    _suffix(content)
    return content


def _held_name(content: bytes) -> str:
    """Returns the file name of a picture that lies in a row: its sha256, so that each is written once."""
    return f"{hashlib.sha256(content).hexdigest()}{_suffix(content)}"


def _suffix(content: bytes) -> str:
    suffix = image_suffix(content)
    if suffix is None:
        raise DataError(f"image bytes begin with {content[:8]!r}: not a JPEG, PNG or WebP; convert it")
    return suffix


def _png(image: Image.Image) -> bytes:
    """Returns a PIL image as a PNG file, as large as one that can be read again, its EXIF orientation kept.

    Raises:
        DataError: It is too large, was closed, or holds no colours.
    """
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"image of {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are accepted")
    file = BytesIO()
    try:
        exif = image.getexif()
        if image.mode not in _PNG_MODES or not image.width * image.height:
            image = open_image(image, exif="ignore")  # the colours that a file's picture has, or why there are none
        image.save(file, "PNG", exif=exif, compress_level=1)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"PIL image: cannot be read ({error}); give one that is whole and not closed") from error
    return file.getvalue()
