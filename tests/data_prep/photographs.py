"""Photographs with their official questions and captions: real ones, or drawn ones under real names.

COCO's photographs may not be given away, so that a clone has none. What is done with them but to look at them is the
same for noise of a photograph's format: the questions, captions, ids and file names are real either way.
"""

import gzip
import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.data_prep.raw_files import write_json

NUM_ASKED = 25
NUM_CAPTIONED = {"train": 5, "restval": 5, "val": 5, "test": 7}


@dataclass(frozen=True)
class Photographs:
    """A folder of photographs, as ``coco_images`` of the complete real data is laid out.

    Attributes:
        folder: Photographs in folders of their own, ``index.json``, and the official files cut to them.
        records: Of the Karpathy file, for these images and others.
    """

    folder: Path
    records: list[dict[str, Any]]

    def read(self, name: str) -> Any:
        """Returns the content of a JSON file of the folder."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def files(self) -> dict[int, list[str]]:
        """Returns the files of every image, by its id."""
        files = defaultdict(list)
        for entry in self.read("index.json"):
            files[entry["cocoid"]].append(entry["file"])
        return files

    def asked(self) -> list[int]:
        """Returns the ids of the images with questions that no Karpathy record names."""
        known = {record["cocoid"] for record in self.records}
        asked = {question["image_id"] for question in self.read("vqa_questions.json")["questions"]}
        return sorted(asked & self.files().keys() - known)


def real_photographs(shared_data: Path) -> Photographs:
    """Returns the complete real data's."""
    return Photographs(
        shared_data / "coco_images", _records(shared_data / "karpathy/dataset_coco_subset_rebuilt.json.gz")
    )


def draw_photographs(folder: Path, excerpt: Path) -> Photographs:
    """Draws noise under the names, of 2014 and of 2017, of images of the excerpt, and cuts its files to them."""
    records = _records(excerpt / "karpathy" / "dataset_coco.json.gz")
    chosen = [r for split, count in NUM_CAPTIONED.items() for r in [r for r in records if r["split"] == split][:count]]
    captioned = [record["cocoid"] for record in chosen]
    names = {
        record["cocoid"]: f"{record['filepath']}/{record['filename']}"
        if number % 2
        else f"mini/{record['cocoid']:012d}.jpg"
        for number, record in enumerate(chosen)
    }
    questions = _read(excerpt / "vqa" / "questions.json.gz")["questions"][:NUM_ASKED]
    names |= {q["image_id"]: f"train2014/COCO_train2014_{q['image_id']:012d}.jpg" for q in questions}
    for image_id, name in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = random.Random(image_id).randbytes(3 * 48 * 36)
        Image.frombytes("RGB", (48, 36), noise).save(folder / name)
    write_json(folder / "index.json", [{"file": name, "cocoid": image_id} for image_id, name in names.items()])
    asked = {question["question_id"] for question in questions}
    annotations = _read(excerpt / "vqa" / "annotations.json.gz")["annotations"]
    write_json(folder / "vqa_questions.json", {"questions": questions})
    write_json(folder / "vqa_annotations.json", {"annotations": [a for a in annotations if a["question_id"] in asked]})
    official = [_read(excerpt / "captions" / f"captions_{year}.json.gz") for year in ("val2017", "train2017")]
    cut: dict[str, Any] = {
        key: [row for content in official for row in content[key] if row[name] in captioned]
        for key, name in (("images", "id"), ("annotations", "image_id"))
    }
    write_json(folder / "captions_images.json", cut)
    return Photographs(folder, records)


def _read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def _records(path: Path) -> list[dict[str, Any]]:
    return list(_read(path)["images"])
