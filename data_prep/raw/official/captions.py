"""Captions: Karpathy's form, in which each image has its split and sentences, and COCO's, of images and annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from data_prep.raw.json_files import Place, RawFile, records, take
from data_prep.raw.karpathy import Caption, read_image_path, read_sentences, read_split
from data_prep.raw.official.base import OfficialFormat, optional_text
from data_prep.raw.text_files import Placed
from dept_vl.errors import DataError


def _read_karpathy(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    (file,) = files
    for number, record in enumerate(records(file, "images")):
        place = Place(file.path, "images", number)
        if read_split(record, place) != split:
            continue
        key = "cocoid" if "cocoid" in record else "imgid"
        image_id = take(record, key, int, place)
        yield (
            str(place),
            {
                "id": image_id,
                "image": read_image_path(record, place),
                "image_id": image_id if key == "cocoid" else None,
                "caption": _texts(read_sentences(record, place)),
            },
        )


def _read_coco(files: Sequence[RawFile], split: str) -> Iterator[Placed]:
    (file,) = files
    captions: dict[int, list[Caption]] = defaultdict(list)
    for number, record in enumerate(records(file, "annotations") if "annotations" in _top(file) else []):
        place = Place(file.path, "annotations", number)
        caption = Caption(take(record, "id", int, place), take(record, "caption", str, place))
        captions[take(record, "image_id", int, place)].append(caption)
    images = records(file, "images")
    for number, record in enumerate(images):
        place = Place(file.path, "images", number)
        image_id, name = take(record, "id", int, place), take(record, "file_name", str, place)
        yield (
            str(place),
            {
                "id": image_id,
                "image": name,
                "image_id": image_id if name.endswith(f"{image_id:012}.jpg") else None,
                "caption": _texts(captions.pop(image_id, [])),
                "domain": optional_text(record, "domain", place),
            },
        )
    if captions:
        raise DataError(
            f"{file.path}: captions of {len(captions):,} images, such as {next(iter(captions))}, that are not among "
            f"its {len(images):,} images; is it cut?"
        )


def _top(file: RawFile) -> dict[str, object]:
    return file.content if isinstance(file.content, dict) else {}


def _texts(captions: Sequence[Caption]) -> list[str]:
    """Returns captions in the order of their ids."""
    return [one.caption for one in sorted(captions, key=lambda one: one.caption_id)]


KARPATHY = OfficialFormat(
    _read_karpathy,
    ("id", "image", "image_id", "caption"),
    "one file of images, such as dataset_flickr30k.json, named for every split that is to be made",
)
COCO = OfficialFormat(
    _read_coco,
    ("id", "image", "image_id", "caption", "domain"),
    "one file of images and annotations, such as nocaps_val_4500_captions.json",
)
