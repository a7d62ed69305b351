"""The Karpathy splits of COCO, from ``dataset_coco.json`` as Karpathy published it.

Training uses ``train`` and ``restval`` together (113,287 images), as everyone since Karpathy & Fei-Fei 2015 does;
``val`` and ``test`` have 5,000 images each. Questions and captions follow their image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_prep.prepared import Preparation
from data_prep.raw.json_files import Place, RawFile, find_raw, read_json, records, take
from dept_vl.errors import DataError
from dept_vl.tasks import Row, SplitSize, Task

FILE = "dataset_coco.json"
FULL_IMAGES = 123_287
"""Images in the complete file; with fewer, counts are those of a subset."""

SPLITS = ("train", "val", "test")
_SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_PLAIN_PART = re.compile(r"^(?!\.\.?$)[^/\\\x00:]+$")


@dataclass(frozen=True)
class KarpathySplits:
    """Which split each image is in, and its official file.

    Attributes:
        file: The file it was read from.
        split_of: Image id to ``"train"``, ``"val"`` or ``"test"``, in the file's order.
        path_of: Image id to official path, such as ``val2014/COCO_val2014_000000391895.jpg``.
    """

    file: RawFile
    split_of: dict[int, str]
    path_of: dict[int, str]

    @property
    def is_full(self) -> bool:
        """Whether this is the complete file, whose counts are known."""
        return len(self.split_of) == FULL_IMAGES

    def preparation(
        self,
        task: Task,
        schema: pa.Schema,
        rows: Mapping[str, Iterable[Row]],
        examples: Mapping[str, SplitSize],
        left_out: dict[str, int],
        inputs: Sequence[RawFile],
    ) -> Preparation:
        """Returns a task on these splits, ready to be written; the arguments are fields of `Preparation`.

        Raises:
            DataError: There is no example at all.
        """
        if not any(size.rows for size in examples.values()):
            raise DataError(
                f"task {task.name!r}: none of the raw files' examples is on an image that {self.file.path} lists"
            )
        return Preparation(
            task=task,
            schema=schema,
            rows=rows,
            examples=examples,
            is_subset=not self.is_full,
            complete=f"{self.file.path} is the complete Karpathy file",
            left_out=left_out,
            inputs=inputs,
        )


def read_karpathy(raw: Path) -> KarpathySplits:
    """Reads ``dataset_coco.json`` from a folder of raw files.

    Raises:
        DataError: The file is missing or damaged, an image lacks its id, split or name, or is listed twice.
    """
    file = read_json(find_raw(raw, FILE, "karpathy", "annotations"))
    split_of: dict[int, str] = {}
    path_of: dict[int, str] = {}
    for number, record in enumerate(records(file, "images")):
        place = Place(file.path, "images", number)
        image_id = take(record, "cocoid", int, place)
        split = take(record, "split", str, place)
        if split not in _SPLIT_OF:
            raise place.error(f'"split" should be one of {", ".join(_SPLIT_OF)}, found {split!r}')
        if image_id in split_of:
            raise place.error(f'"cocoid" {image_id} is listed twice')
        parts = [take(record, key, str, place) for key in ("filepath", "filename")]
        if not all(_PLAIN_PART.match(part) for part in parts):
            raise place.error(f"{'/'.join(parts)!r} is not a path of a folder and a file")
        split_of[image_id] = _SPLIT_OF[split]
        path_of[image_id] = "/".join(parts)
    if not split_of:
        raise DataError(f"{file.path}: lists no images")
    return KarpathySplits(file.without_content(), split_of, path_of)
