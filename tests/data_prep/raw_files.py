"""Small raw folders in the official formats, for the tests of `prepare`."""

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

ANSWERS = ["yes"] * 4 + ["no"] * 3 + ["maybe", "Yes.", "a cat"]
SPLIT_OF = {1: "train", 2: "restval", 3: "val", 4: "test", 5: "train"}


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def official_path(image_id: int, split: str) -> str:
    year = "train2014" if split == "train" else "val2014"
    return f"{year}/COCO_{year}_{image_id:012d}.jpg"


def karpathy_record(image_id: int, split: str) -> dict:
    folder, name = official_path(image_id, split).split("/")
    return {"filepath": folder, "filename": name, "cocoid": image_id, "split": split, "imgid": 0, "sentences": []}


def annotation(image_id: int, question_id: int, answers=ANSWERS) -> dict:
    return {
        "image_id": image_id,
        "question_id": question_id,
        "answer_type": "yes/no",
        "question_type": "is there a",
        "multiple_choice_answer": "yes",
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": n + 1} for n, a in enumerate(answers)],
    }


def write_karpathy(raw: Path, split_of=SPLIT_OF) -> Path:
    images = [karpathy_record(image_id, split) for image_id, split in split_of.items()]
    return write_json(raw / "dataset_coco.json", {"images": images, "dataset": "coco"})


def write_images(raw: Path, split_of=SPLIT_OF) -> None:
    for image_id, split in split_of.items():
        path = raw / official_path(image_id, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (40 + image_id, 30)
        Image.frombytes("L", size, random.Random(image_id).randbytes(size[0] * size[1])).convert("RGB").save(path)


def write_vqa(raw: Path, year: str, image_ids) -> tuple[Path, Path]:
    """Writes two questions an image, numbered as VQA v2 does."""
    ids = [(image_id, image_id * 1000 + n) for image_id in image_ids for n in range(2)]
    questions = [{"image_id": i, "question_id": q, "question": f"Is there a {q}?"} for i, q in ids]
    return (
        write_json(raw / f"v2_OpenEnded_mscoco_{year}_questions.json", {"info": {}, "questions": questions}),
        write_json(
            raw / f"v2_mscoco_{year}_annotations.json",
            {"info": {}, "annotations": [annotation(i, q) for i, q in reversed(ids)]},
        ),
    )


def write_captions(raw: Path, year: str, image_ids) -> Path:
    """Writes three captions an image, in falling order of their ids."""
    return write_json(
        raw / "annotations" / f"captions_{year}.json",
        {
            "info": {},
            "licenses": [],
            "images": [
                {"id": i, "file_name": f"COCO_{year}_{i:012d}.jpg", "height": 30, "width": 40} for i in image_ids
            ],
            "annotations": [
                {"image_id": i, "id": i * 100 + n, "caption": f" Caption {n}  of {i}.\n"}
                for n in (2, 1, 0)
                for i in image_ids
            ],
        },
    )


def write_raw(raw: Path, split_of=SPLIT_OF) -> Path:
    """Writes everything: Karpathy file, images, questions and captions. Images 1 and 5 are train2014."""
    raw.mkdir(parents=True, exist_ok=True)
    write_karpathy(raw, split_of)
    write_images(raw, split_of)
    for year, is_train in (("train2014", True), ("val2014", False)):
        ids = [i for i, split in split_of.items() if (split == "train") == is_train]
        write_vqa(raw, year, ids)
        write_captions(raw, year, ids)
    return raw


def edit(path: Path, change) -> None:
    """Applies `change` to a JSON file's content, in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
