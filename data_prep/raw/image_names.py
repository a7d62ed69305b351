"""Finding the image files that rows name, whatever folder, case and suffix the name has."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dept_vl.data.image_files import IMAGE_SUFFIXES, coco_image_id, walk_files
from dept_vl.errors import DataError
from dept_vl.registry import suggest

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_NUMBER = re.compile(r"^[0-9]{1,18}$")
_LAST_NUMBER = re.compile(r"([0-9]{1,18})$")
_LONGEST_SHOWN = 120
_DRIVE = re.compile(r"^[A-Za-z]:[/\\]")


@dataclass
class ImageNames:
    """The images below a folder by name. What is below it is listed when a name is no path of a file.

    Attributes:
        root: The folder.
    """

    root: Path

    def find(self, name: str) -> str | None:
        """Returns the path of an image relative to the root, with ``/``; None where it is not there.

        It is looked for at its path; then by file name, in any case, in every folder below, where the longest common
        end of the paths decides; then by the name without suffix; then, where that is a number or COCO's name of one,
        by the number that a file's name ends in (``12`` is ``IMG_0012.JPG``).

        Raises:
            DataError: It is a web address, lies outside the root, or several files are as good.
        """
        path = self._inside(name)
        if os.path.isfile(self.root / path):
            return path
        folded = path.casefold()
        last = folded.rsplit("/", 1)[-1]
        stem = _stem(last)
        number = int(stem) if _NUMBER.match(stem) else coco_image_id(last)
        by_name, by_stem, by_number = self._index
        found = by_name.get(last) or by_stem.get(stem) or ([] if number is None else by_number.get(number))
        if not found:
            return None
        best = _longest_end(folded, found)
        if len(best) > 1:
            raise DataError(
                f"image {short_name(name)} is there {len(best)} times below {self.root}: {best[0]} and {best[1]}; give "
                "its path"
            )
        return best[0]

    def near(self, name: str) -> str:
        """Returns a suggestion of near names, or the empty string."""
        return suggest(name.rsplit("/", 1)[-1], (file.rsplit("/", 1)[-1] for file in self._files[:10_000]))

    def count(self) -> int:
        """Returns how many images there are below the root."""
        return len(self._files)

    def _inside(self, name: str) -> str:
        """Returns a name as a path relative to the root."""
        if _URL.match(name):
            raise DataError(
                f"image {short_name(name)} is a web address; nothing is downloaded: fetch the images into a folder and "
                "name files"
            )
        path = name if os.sep == "\\" else name.replace("\\", "/")
        if path.startswith("/") or _DRIVE.match(path):
            inside = os.path.relpath(path, os.path.abspath(self.root)).replace(os.sep, "/")
        else:
            inside = posixpath.normpath(path)
        if inside == ".." or inside.startswith("../") or _DRIVE.match(inside) or "\0" in inside:
            raise DataError(
                f"image {short_name(name)} lies outside the folder of images, {self.root}; --images says another (in "
                "Python images=)"
            )
        return inside

    @cached_property
    def _files(self) -> list[str]:
        hidden = ("/.", "__macosx/")
        return sorted(
            file
            for file in (walk_files(self.root) if self.root.is_dir() else ())
            if file.lower().endswith(IMAGE_SUFFIXES) and not any(part in f"/{file.lower()}" for part in hidden)
        )

    @cached_property
    def _index(self) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[int, list[str]]]:
        """The images by name, by name without suffix, and by the number it ends in."""
        by_name, by_stem, by_number = defaultdict(list), defaultdict(list), defaultdict(list)
        for file in self._files:
            name = file.rsplit("/", 1)[-1].casefold()
            by_name[name].append(file)
            by_stem[_stem(name)].append(file)
            if number := _LAST_NUMBER.search(_stem(name)):
                by_number[int(number[1])].append(file)
        return by_name, by_stem, by_number


def short_name(name: str) -> str:
    """Returns a name for messages, in quotes, and not longer than a name should be."""
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[: _LONGEST_SHOWN - 3]}...")


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if name.endswith(IMAGE_SUFFIXES) else name


def _longest_end(path: str, found: Iterable[str]) -> list[str]:
    """Returns those of some files whose paths have most folders at their ends in common with `path`."""
    wanted = path.split("/")[-2::-1]

    def common(file: str) -> int:
        folders = file.casefold().split("/")[-2::-1]
        return next(
            (n for n, (a, b) in enumerate(zip(wanted, folders, strict=False)) if a != b), min(len(wanted), len(folders))
        )

    counts = {file: common(file) for file in found}
    return [file for file, count in counts.items() if count == max(counts.values())]
