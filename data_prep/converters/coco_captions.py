"""COCO captions as downloaded -> prepared splits of the task ``coco`` on the Karpathy images.

Karpathy's files of Flickr8k and Flickr30k, which bring their captions along, are prepared the same way.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.prepared import Preparation, PreparedStats
from data_prep.raw.json_files import Place, RawFile, find_raw, read_json, records, take
from data_prep.raw.karpathy import Caption, KarpathySplits, read_karpathy
from dept_vl.data.image_files import locate_images
from dept_vl.data.manifest import manifest_schema, task_folder
from dept_vl.errors import DataError
from dept_vl.system.atomic import refuse_existing
from dept_vl.tasks import Row, SplitSize, Task
from dept_vl.tasks.splits import SPLITS

logger = logging.getLogger(__name__)

YEARS = ("train2014", "val2014")
SCHEMA = manifest_schema(images=True)


def prepare_coco(
    task: Task, raw: Path, out: Path, *, images: Path | None = None, image_check: bool = True
) -> PreparedStats:
    """Writes ``out/<task>/{train,val,test}.parquet`` and ``stats.json`` from the official files, all or nothing.

    Training has a row a caption; validation and test have a row an image, with all its captions as references.

    Args:
        task: The task that the splits are of.
        raw: Folder with ``captions_{train,val}2014.json`` (or in ``annotations/``) and ``dataset_coco.json``; or with
            ``dataset_flickr8k.json`` or ``dataset_flickr30k.json`` alone.
        out: The data folder.
        images: Root of the image folders; None: `raw`.
        image_check: Whether each image's file is looked for. If not, rows carry the official path.

    Returns:
        Counts by split, also logged.

    Raises:
        DataError: A raw file is missing, damaged or of another shape, image files are missing, counts of complete data
            differ, or the task's folder is not empty.
    """
    refuse_existing(task_folder(out, task))
    karpathy = read_karpathy(raw)
    captions, files = _read_all(raw) if karpathy.sentences is None else (karpathy.sentences, [])
    if karpathy.sentences is not None:
        logger.info("%s: not COCO's; its own sentences are the captions, with no official count", karpathy.file.path)
        task = replace(task, split_sizes={})
    used = {image_id: path for image_id, path in karpathy.path_of.items() if image_id in captions}
    root = images if images is not None else raw
    paths = locate_images(root, used) if image_check else used
    return build(task, captions, karpathy, paths, [karpathy.file, *files]).write(out, raw, root)


def build(
    task: Task,
    captions: Mapping[int, Sequence[Caption]],
    karpathy: KarpathySplits,
    paths: Mapping[int, str],
    inputs: Sequence[RawFile],
) -> Preparation:
    """Sorts images into splits and counts; reads and writes nothing."""
    images: dict[str, list[int]] = {split: [] for split in SPLITS}
    for image_id, split in karpathy.split_of.items():
        if image_id in captions:
            images[split].append(image_id)
    train_captions = sum(len(captions[image_id]) for image_id in images["train"])
    blank = sum(not c.caption.strip() for image_id in images["train"] for c in captions[image_id])
    examples = {
        split: SplitSize(train_captions if split == "train" else len(images[split]), len(images[split]))
        for split in SPLITS
    }
    return Preparation(
        task=task,
        schema=SCHEMA,
        rows={split: convert(captions, images[split], paths, per_caption=split == "train") for split in SPLITS},
        examples=examples,
        left_out={
            f"images left out: they have captions but are not in {karpathy.file.path.name}": len(
                captions.keys() - karpathy.split_of.keys()
            ),
            f"images of {karpathy.file.path.name} left out: they have no captions": len(
                karpathy.split_of.keys() - captions.keys()
            ),
            "training captions left out: they have no text": blank,
        },
        inputs=inputs,
        **karpathy.completeness(task, examples),
    )


def convert(
    captions: Mapping[int, Sequence[Caption]], image_ids: Sequence[int], paths: Mapping[int, str], *, per_caption: bool
) -> Iterator[Row]:
    """Yields manifest rows, image by image; captions in order of their ids.

    Args:
        captions: Captions by image id.
        image_ids: Images to convert.
        paths: Image id to path.
        per_caption: A row for each caption that has text, with it as the target; if not, a row an image without target.
    """
    for image_id in image_ids:
        references = [caption.caption for caption in captions[image_id]]
        row = {"image_id": image_id, "image": paths[image_id], "references": references}
        if not per_caption:
            yield {**row, "example_id": image_id, "targets": [], "target_weights": []}
            continue
        for caption in captions[image_id]:
            text = " ".join(caption.caption.split())
            if text:
                yield {**row, "example_id": caption.caption_id, "targets": [text], "target_weights": [1.0]}


def _read_all(raw: Path) -> tuple[dict[int, list[Caption]], list[RawFile]]:
    """Returns the captions of both years by image id, and their files."""
    captions: dict[int, list[Caption]] = {}
    files = []
    for year in YEARS:
        found, file = read_captions(raw, year)
        shared = captions.keys() & found.keys()
        if shared:
            raise DataError(f"{file.path}: image {min(shared)} is in captions_{YEARS[0]}.json too")
        captions |= found
        files.append(file)
    return captions, files


def read_captions(raw: Path, year: str) -> tuple[dict[int, list[Caption]], RawFile]:
    """Reads the captions of ``"train2014"`` or ``"val2014"``; nothing else that the file may hold is looked at.

    Returns:
        Captions by image id, each list in order of the annotation ids; and the file, without its content.

    Raises:
        DataError: The file is missing or damaged, a record lacks a key, an id is there twice, or a caption is on an
            image the file does not list.
    """
    file = read_json(find_raw(raw, f"captions_{year}.json", "annotations"))
    listed = _check(file)
    captions: dict[int, list[Caption]] = defaultdict(list)
    for annotation in sorted(records(file, "annotations"), key=lambda record: int(record["id"])):
        captions[annotation["image_id"]].append(Caption(annotation["id"], annotation["caption"]))
    unlisted = captions.keys() - listed
    if unlisted:
        raise DataError(f'{file.path}: captions of image {min(unlisted)}, which its "images" do not list')
    return dict(captions), file.without_content()


def _check(file: RawFile) -> set[int]:
    """Checks every record this module relies on; returns the ids of the listed images."""
    image_ids = set()
    for number, record in enumerate(records(file, "images")):
        image_ids.add(take(record, "id", int, Place(file.path, "images", number)))
    caption_ids: set[int] = set()
    for number, record in enumerate(records(file, "annotations")):
        place = Place(file.path, "annotations", number)
        take(record, "image_id", int, place)
        take(record, "caption", str, place)
        caption_id = take(record, "id", int, place)
        if caption_id in caption_ids:
            raise place.error(f'"id" {caption_id} is there twice')
        caption_ids.add(caption_id)
    return image_ids
