"""The Karpathy splits of COCO, from ``dataset_coco.json`` as Karpathy published it.

Training uses ``train`` and ``restval`` together (113,287 images), as everyone since Karpathy & Fei-Fei 2015 does;
``val`` and ``test`` have 5,000 images each. Questions and captions follow their image.

His files of Flickr8k and Flickr30k have another form: no ids and folders of COCO, and the captions in the file itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from data_prep.raw.json_files import Place, RawFile, Record, find_raw, read_json, records, take
from dept_vl.errors import DataError
from dept_vl.tasks import SplitSize, Task

FILE = "dataset_coco.json"
FLICKR_FILES = ("dataset_flickr30k.json", "dataset_flickr8k.json")
FULL_IMAGES = 123_287
"""Images in the complete file; with fewer, counts are those of a subset."""

_SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_FOLDERS = ("karpathy", "annotations")
_PLAIN_PART = re.compile(r"^(?!\.\.?$)[^/\\\x00:]+$")


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption and its id (of the official annotation, Karpathy's ``sentid``)."""

    caption_id: int
    caption: str


class Completeness(TypedDict):
    """Fields of `Preparation`: whether raw files are not the complete ones, and why they are if they are."""

    is_subset: bool
    complete: str


@dataclass(frozen=True)
class KarpathySplits:
    """Which split each image is in, and its official file.

    Attributes:
        file: The file it was read from.
        split_of: Image id to ``"train"``, ``"val"`` or ``"test"``, in the file's order.
        path_of: Image id to official path, such as ``val2014/COCO_val2014_000000391895.jpg``; the name alone of
            Flickr's images.
        sentences: Image id to its captions, of a file that brings them (Flickr's); None: they lie in other files.
    """

    file: RawFile
    split_of: dict[int, str]
    path_of: dict[int, str]
    sentences: dict[int, list[Caption]] | None = None

    @property
    def is_full(self) -> bool:
        """Whether this is the complete file, whose counts are known."""
        return len(self.split_of) == FULL_IMAGES and self.sentences is None

    def completeness(self, task: Task, examples: Mapping[str, SplitSize]) -> Completeness:
        """Returns what `Preparation` says about whether these files are complete, of a task's examples on the images.

        Raises:
            DataError: There is no example at all.
        """
        if not any(size.rows for size in examples.values()):
            raise DataError(
                f"task {task.name!r}: none of the raw files' examples is on an image that {self.file.path} lists"
            )
        return {"is_subset": not self.is_full, "complete": f"{self.file.path} is the complete Karpathy file"}


def read_karpathy(raw: Path) -> KarpathySplits:
    """Reads ``dataset_coco.json`` from a folder of raw files; where there is none, a file of Flickr images.

    Raises:
        DataError: The file is missing or damaged, an image lacks its id, split or name, or is listed twice.
    """
    file = read_json(_find(raw))
    listed = records(file, "images")
    is_flickr = file.path.name.removesuffix(".gz") in FLICKR_FILES
    split_of: dict[int, str] = {}
    path_of: dict[int, str] = {}
    sentences: dict[int, list[Caption]] = {}
    key = "imgid" if is_flickr else "cocoid"
    for number, record in enumerate(listed):
        place = Place(file.path, "images", number)
        if key not in record and "sentences" in record:
            raise place.error(
                f'missing "{key}"; it has {", ".join(map(repr, record))}: if this is the file of Flickr8k or Flickr30k,'
                f" call it {' or '.join(FLICKR_FILES)}; its own sentences are the captions then"
            )
        image_id = take(record, key, int, place)
        split = read_split(record, place)
        if image_id in split_of:
            raise place.error(f'"{key}" {image_id} is listed twice')
        split_of[image_id] = split
        path_of[image_id] = read_image_path(record, place)
        if is_flickr:
            sentences[image_id] = read_sentences(record, place)
    if not split_of:
        raise DataError(f"{file.path}: lists no images")
    twice = [i for i, n in Counter(c.caption_id for each in sentences.values() for c in each).items() if n > 1]
    if twice:
        raise DataError(f'{file.path}: "sentid" {twice[0]} is there twice')
    return KarpathySplits(file.without_content(), split_of, path_of, sentences if is_flickr else None)


def _find(raw: Path) -> Path:
    try:
        return find_raw(raw, FILE, *_FOLDERS)
    except DataError:
        for name in FLICKR_FILES:
            try:
                return find_raw(raw, name, *_FOLDERS)
            except DataError:
                continue
        raise


def read_split(record: Record, place: Place) -> str:
    """Returns which of our splits an image is in.

    Raises:
        DataError: Its split is absent, or none that Karpathy has.
    """
    split = take(record, "split", str, place)
    if split not in _SPLIT_OF:
        raise place.error(f'"split" should be one of {", ".join(_SPLIT_OF)}, found {split!r}')
    return _SPLIT_OF[split]


def read_image_path(record: Record, place: Place) -> str:
    """Returns an image's path: folder and name of COCO's, the name alone of Flickr's.

    Raises:
        DataError: One is absent, or leads elsewhere.
    """
    parts = [
        take(record, part, str, place) for part in (("filepath", "filename") if "cocoid" in record else ("filename",))
    ]
    if not all(_PLAIN_PART.match(part) for part in parts):
        raise place.error(f"{'/'.join(parts)!r} is not a path of a folder and a file")
    return "/".join(parts)


def read_sentences(record: Record, place: Place) -> list[Caption]:
    """Returns the captions that Karpathy's file has of an image.

    Raises:
        DataError: There are none, or they are of another form.
    """
    captions = []
    for sentence in take(record, "sentences", list, place):
        if not isinstance(sentence, dict):
            raise place.error('"sentences" should be a list of objects with "raw" and "sentid"')
        captions.append(Caption(take(sentence, "sentid", int, place), take(sentence, "raw", str, place)))
    if not captions:
        raise place.error('"sentences" is empty: the image has no caption')
    return captions
