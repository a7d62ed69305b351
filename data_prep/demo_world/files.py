"""Writes drawn scenes in the official raw formats of VQA v2, COCO captions and the Karpathy split.

The folder looks as if it had been downloaded; `prepare` and `cache-features` read it like any other. Scenes of the four
Karpathy splits, and of the demo backbone's pretraining, are disjoint by content (`Scene.split`). As in the real data,
restval, val and test images are all part of val2014.
"""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from data_prep.demo_world.drawing import IMAGE_SIZE, draw_image
from data_prep.demo_world.questions import Question, Wording, draw_captions, draw_questions
from data_prep.demo_world.scene import BACKGROUNDS, COLORS, POSITIONS, SHAPES, SIZES, Scene, Split, draw_scene
from dept_vl.errors import DataError

logger = logging.getLogger(__name__)

DRAWN_TASKS = ("vqa", "coco")
"""The tasks whose raw files `write_scenes` writes."""

QUESTIONS_PER_IMAGE = 4
ANSWERS_PER_QUESTION = 10
JPEG_QUALITY = 95
_WRITERS = 4

Subset = Literal["train2014", "val2014"]

_YEAR = 2014
_CREATED = "2014-01-01 00:00:00"  # a fixed date: the same seed writes the same bytes
_LICENSE = {
    "id": 1,
    "name": "Drawn by dept_vl; no rights reserved",
    "url": "https://creativecommons.org/publicdomain/zero/1.0/",
}
# How many of the ten annotators disagree, as (count, weight): three at most, but for a few hard questions.
_DISSENTERS = ((0, 52), (1, 25), (2, 13), (3, 7), (4, 2), (5, 1))
_SYNONYMS = {
    "gray": "grey",
    "purple": "violet",
    "beige": "tan",
    "large": "big",
    "small": "little",
    "center": "middle",
    "circle": "ball",
    "cross": "plus",
    "diamond": "rhombus",
    "top": "up",
    "top left": "upper left",
    "top right": "upper right",
    "bottom left": "lower left",
    "bottom right": "lower right",
}
_ANSWER_KINDS = (COLORS, SHAPES, SIZES, POSITIONS, BACKGROUNDS)


@dataclass(frozen=True)
class _DrawnImage:
    """One image of the data set: its scene, its split and subset, and its ids."""

    scene: Scene
    split: Split
    image_id: int

    @property
    def subset(self) -> Subset:
        return "train2014" if self.split == "train" else "val2014"

    @property
    def file_name(self) -> str:
        return f"COCO_{self.subset}_{self.image_id:012d}.jpg"


def write_scenes(
    root: Path,
    *,
    num_train: int,
    num_restval: int,
    num_val: int,
    num_test: int,
    seed: int = 0,
    wording: Wording = "keywords",
    train_scenes: Split = "train",
) -> None:
    """Draws scenes and writes them under `root` as the official files and image folders.

    The same arguments write the same files on any machine. The folder is built beside `root` under the name
    ``<root>.incomplete`` and renamed at the end, so that `root` is complete whenever it exists.

    Args:
        root: Folder to create; it must not exist, or be empty.
        num_train: Images of the Karpathy train split, in train2014.
        num_restval: Images of restval, in val2014.
        num_val: Images of the validation split, in val2014.
        num_test: Images of the test split, in val2014.
        seed: Other seeds draw other images and questions, from the same disjoint sets of scenes.
        wording: Of questions and captions.
        train_scenes: Which scenes the Karpathy train split has; ``"pretrain"`` for the demo's models.

    Raises:
        DataError: A number of images is negative, all are zero, or `root` holds something already or cannot be written.
    """
    counts: dict[Split, int] = {"train": num_train, "restval": num_restval, "val": num_val, "test": num_test}
    if min(counts.values()) < 0 or not any(counts.values()):
        raise DataError(f"scenes: the numbers of images must be >= 0 and not all 0, got {counts}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists and is not an empty folder; give a new folder for the drawn scenes")
    building = root.with_name(root.name + ".incomplete")
    images = _draw_images(counts, seed, train_scenes)
    rng = random.Random(f"{seed}:text")
    try:
        if building.exists():  # a killed run's
            shutil.rmtree(building)
        building.mkdir(parents=True)
        _write_images(building, images, seed)
        _write_questions(building, images, rng, wording)
        _write_captions(building, images, rng, wording)
        if root.exists():
            root.rmdir()
        building.rename(root)
    except OSError as error:
        raise DataError(f"{root}: cannot write the scenes: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    logger.info("drew %d scenes in %s", len(images), root)


def _draw_images(counts: dict[Split, int], seed: int, train_scenes: Split) -> list[_DrawnImage]:
    """Draws distinct scenes for every split; ids run over the shuffled images, as splits are mixed in real val2014."""
    scenes: list[tuple[Scene, Split]] = []
    for split, count in counts.items():
        rng = random.Random(f"{seed}:{split}")
        drawn: dict[str, Scene] = {}
        while len(drawn) < count:
            scene = draw_scene(rng, train_scenes if split == "train" else split)
            drawn.setdefault(scene.key, scene)
        scenes += [(scene, split) for scene in drawn.values()]
    random.Random(f"{seed}:order").shuffle(scenes)
    return [_DrawnImage(scene, split, image_id) for image_id, (scene, split) in enumerate(scenes, start=1)]


def _write_images(folder: Path, images: list[_DrawnImage], seed: int) -> None:
    for subset in ("train2014", "val2014"):
        (folder / subset).mkdir()

    def write(image: _DrawnImage) -> None:
        pixels = draw_image(image.scene, seed=(seed << 32) + image.image_id)
        Image.fromarray(pixels).save(folder / image.subset / image.file_name, quality=JPEG_QUALITY, subsampling=0)

    # Each image has its own seed, so that threads change nothing but the time; most of it is waiting for the disk.
    with ThreadPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(write, images):
            pass


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _info(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "url": "",
        "version": "1.0",
        "year": _YEAR,
        "contributor": "dept_vl",
        "date_created": _CREATED,
    }


def _write_questions(folder: Path, images: list[_DrawnImage], rng: random.Random, wording: Wording) -> None:
    """Writes the VQA v2 questions and annotations of both subsets."""
    license_entry = {"url": _LICENSE["url"], "name": _LICENSE["name"]}
    for subset in ("train2014", "val2014"):
        questions, annotations = [], []
        for image in images:
            if image.subset != subset:
                continue
            for index, question in enumerate(draw_questions(image.scene, QUESTIONS_PER_IMAGE, rng, wording)):
                ids = {"image_id": image.image_id, "question_id": image.image_id * 1000 + index}
                questions.append(ids | {"question": question.worded(wording)})
                annotations.append(ids | _annotation(question, rng))
        header = {"info": _info("Scenes drawn by dept_vl, in the format of VQA v2"), "license": license_entry,
                  "data_type": "mscoco", "data_subtype": subset}  # fmt: skip
        _write_json(
            folder / f"v2_OpenEnded_mscoco_{subset}_questions.json",
            header | {"task_type": "Open-Ended", "questions": questions},
        )
        _write_json(folder / f"v2_mscoco_{subset}_annotations.json", header | {"annotations": annotations})


def _annotation(question: Question, rng: random.Random) -> dict[str, Any]:
    counts, weights = zip(*_DISSENTERS, strict=True)
    num_wrong = rng.choices(counts, weights)[0]
    given = [_dissent(question, rng) for _ in range(num_wrong)]
    given += [question.answer] * (ANSWERS_PER_QUESTION - num_wrong)
    rng.shuffle(given)
    return {
        "question_type": question.question_type,
        "answer_type": question.answer_type,
        "multiple_choice_answer": question.answer,
        "answers": [
            {"answer": answer, "answer_confidence": _confidence(answer == question.answer, rng), "answer_id": index}
            for index, answer in enumerate(given, start=1)
        ],
    }


def _confidence(is_right: bool, rng: random.Random) -> str:
    sure, unsure = (0.90, 0.99) if is_right else (0.50, 0.85)
    draw = rng.random()
    return "yes" if draw < sure else "maybe" if draw < unsure else "no"


def _dissent(question: Question, rng: random.Random) -> str:
    """What an annotator who disagrees says: a synonym, or a mistake of the same kind as the answer."""
    answer = question.answer
    if question.answer_type == "yes/no":
        return "no" if answer == "yes" else "yes"
    if question.answer_type == "number":
        return str(max(0, int(answer) + rng.choice((-1, 1)))) if answer != "0" else "1"
    if answer in _SYNONYMS and rng.random() < 0.6:
        return _SYNONYMS[answer]
    kind = next(values for values in _ANSWER_KINDS if answer in values)
    return rng.choice([value for value in kind if value != answer])


def _write_captions(folder: Path, images: list[_DrawnImage], rng: random.Random, wording: Wording) -> None:
    """Writes ``captions_*.json`` of both subsets and the Karpathy file, with the same caption ids in both."""
    sentence_ids = _shuffled_ids(len(images) * 5, rng)
    captions = {
        image.image_id: [(next(sentence_ids), caption) for caption in draw_captions(image.scene, rng, wording)]
        for image in images
    }
    for subset in ("train2014", "val2014"):
        chosen = [image for image in images if image.subset == subset]
        annotations: list[dict[str, Any]] = [
            {"image_id": image.image_id, "id": sentence_id, "caption": caption}
            for image in chosen
            for sentence_id, caption in captions[image.image_id]
        ]
        annotations.sort(key=lambda row: row["id"])
        _write_json(
            folder / "annotations" / f"captions_{subset}.json",
            {
                "info": _info("Scenes drawn by dept_vl, in the format of COCO captions"),
                "images": [_image_record(image) for image in chosen],
                "licenses": [_LICENSE],
                "annotations": annotations,
            },
        )
    records = [_karpathy_record(image, index, captions[image.image_id]) for index, image in enumerate(images)]
    _write_json(folder / "dataset_coco.json", {"images": records, "dataset": "coco"})


def _shuffled_ids(count: int, rng: random.Random) -> Iterator[int]:
    ids = list(range(1, count + 1))
    rng.shuffle(ids)
    return iter(ids)


def _image_record(image: _DrawnImage) -> dict[str, Any]:
    return {
        "license": _LICENSE["id"],
        "file_name": image.file_name,
        "coco_url": "",
        "height": IMAGE_SIZE,
        "width": IMAGE_SIZE,
        "date_captured": _CREATED,
        "flickr_url": "",
        "id": image.image_id,
    }


def _karpathy_record(image: _DrawnImage, index: int, captions: list[tuple[int, str]]) -> dict[str, Any]:
    return {
        "filepath": image.subset,
        "sentids": [sentence_id for sentence_id, _ in captions],
        "filename": image.file_name,
        "imgid": index,
        "split": image.split,
        "sentences": [
            {
                "tokens": re.findall(r"[a-z0-9]+", caption.lower()),
                "raw": caption,
                "imgid": index,
                "sentid": sentence_id,
            }
            for sentence_id, caption in captions
        ],
        "cocoid": image.image_id,
    }
