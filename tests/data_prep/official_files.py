"""Small raw folders in the official files of the data sets that are declared by a file, a few rows each."""

import json
import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image, ImageDraw

from tests.data_prep.raw_files import annotation, write_json

ANSWERS = ["pony tail"] * 6 + ["ponytail"] * 3 + ["braid"]
CHOICES = ["Ohio", "Iowa", "Utah"]


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (20 + number % 7, 20)
    Image.frombytes("L", size, random.Random(number).randbytes(size[0] * size[1])).save(path)


def write_okvqa(raw: Path) -> None:
    for year, images in (("train2014", range(1, 13)), ("val2014", (21, 22))):
        ids = [(image, 10 * image + n) for image in images for n in range(2)]
        questions = [{"image_id": i, "question_id": q, "question": f"What is {q}?"} for i, q in ids]
        annotations = [{**annotation(i, q, ANSWERS), "answer_type": "other", "question_type": "three"} for i, q in ids]
        header = {"data_type": "mscoco", "data_subtype": year}
        write_json(raw / f"OpenEnded_mscoco_{year}_questions.json", {**header, "questions": questions})
        write_json(raw / f"mscoco_{year}_annotations.json", {**header, "annotations": annotations})
        for image in images:
            write_image(raw / year / f"COCO_{year}_{image:012}.jpg", image)


def gqa_record(image: int, answer: str | None = "left") -> dict[str, Any]:
    record = {
        "question": f"On which side of {image} is it?",
        "imageId": str(image),
        "isBalanced": True,
        "types": {"structural": "query", "semantic": "rel", "detailed": "relS"},
        "semantic": [],
    }
    return record if answer is None else {**record, "answer": answer, "fullAnswer": f"On the {answer}."}


def write_gqa(raw: Path) -> None:
    for start, name in ((10, "train"), (20, "val"), (30, "testdev")):
        images = range(start, start + 3)
        write_json(raw / f"{name}_balanced_questions.json", {f"0{image}7": gqa_record(image) for image in images})
        for image in images:
            write_image(raw / "images" / f"{image}.jpg", image)


def vizwiz_record(name: str, answers: list[str] | None = ANSWERS) -> dict[str, Any]:
    record = {"image": name, "question": f"What is in {name}?"}
    if answers is None:
        return record
    listed = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    return {**record, "answers": listed, "answer_type": "other", "answerable": 1}


def write_vizwiz(raw: Path) -> None:
    for number, (name, count) in enumerate((("train", 12), ("val", 3))):
        names = [f"VizWiz_{name}_{n:08}.jpg" for n in range(count)]
        write_json(raw / f"{name}.json", [vizwiz_record(one) for one in names])
        for n, one in enumerate(names):
            write_image(raw / name / one, 100 * number + n)


def karpathy_image(number: int, split: str) -> dict[str, Any]:
    sentences = [{"raw": f"Sentence {n} of {number}.", "sentid": 5 * number + n, "tokens": []} for n in (1, 0)]
    return {"imgid": number, "filename": f"{1000 + number}.jpg", "split": split, "sentences": sentences}


def write_flickr30k(raw: Path) -> None:
    images = [karpathy_image(n, split) for n, split in enumerate(("train", "train", "val", "test", "test"))]
    write_json(raw / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    for image in images:
        write_image(raw / "flickr30k-images" / image["filename"], image["imgid"])


def nocaps(count: int = 3) -> dict[str, Any]:
    domains = ["in-domain", "near-domain", "out-domain"]
    return {
        "images": [
            {"id": n, "open_images_id": f"{n:016}", "file_name": f"{n:016}.jpg", "domain": domains[n % 3]}
            for n in range(count)
        ],
        "annotations": [
            {"id": 10 * n + k, "image_id": n, "caption": f"Caption {k} of {n}."} for k in (1, 0) for n in range(count)
        ],
    }


def write_nocaps(raw: Path) -> None:
    write_json(raw / "nocaps_val_4500_captions.json", nocaps())
    for n in range(3):
        write_image(raw / "validation" / f"{n:016}.jpg", n)


def problem(number: int, *, has_image: bool = True, **changes: Any) -> dict[str, Any]:
    return {
        "question": f"Which state is {number}?",
        "choices": CHOICES,
        "answer": number % 3,
        "hint": "" if number % 2 else "Look at the map. ",
        "image": "image.png" if has_image else None,
        "subject": "social science",
        "topic": "geography",
        "category": "maps",
        "skill": "Read a map",
        "grade": "grade4",
        "lecture": "",
        "solution": "",
        **changes,
    }


def write_scienceqa(raw: Path) -> None:
    splits = {"train": ["1", "2", "3"], "val": ["4"], "test": ["5", "6"], "minitest": ["5"]}
    write_json(raw / "pid_splits.json", splits)
    write_json(raw / "problems.json", {str(n): problem(n, has_image=n != 2) for n in range(1, 7)})
    for split in ("train", "val", "test"):
        for one in splits[split]:
            if one != "2":
                write_image(raw / "images" / split / one / "image.png", 7 if one in ("1", "5") else int(one))


SENTENCES = {0: "The left image is redder than the right one.", 1: "Both images show a disc."}


def nlvr2_pair(rng: random.Random) -> tuple[Image.Image, Image.Image, list[bool]]:
    """Draws a pair of images, and says of each of `SENTENCES` whether it is true of it."""
    colours = rng.choice([("red", "blue"), ("blue", "red")])
    discs = [rng.random() < 0.7 for _ in colours]
    drawn = []
    for colour, is_disc in zip(colours, discs, strict=True):
        image = Image.new("RGB", (32, 32), colour)
        shape = [(8 + rng.randrange(5), 8 + rng.randrange(5)), (20 + rng.randrange(8), 20 + rng.randrange(8))]
        draw = ImageDraw.Draw(image)
        (draw.ellipse if is_disc else draw.rectangle)(shape, fill=(rng.randrange(256), 255, 255))
        drawn.append(image)
    return drawn[0], drawn[1], [colours[0] == "red", all(discs)]


def write_nlvr2(raw: Path, sets: Mapping[str, int] = MappingProxyType({"train": 3, "dev": 2, "test1": 2})) -> None:
    """Writes the three official files, four pairs a set and two sentences each, and the pairs that they name."""
    rng = random.Random(0)
    for split, count in sets.items():
        lines = []
        for of_set, pair in product(range(count), range(4)):
            name = f"{split}-{of_set}-{pair}"
            left, right, truths = nlvr2_pair(rng)
            for number, image in enumerate((left, right)):
                path = raw / "images" / split / f"{name}-img{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, "JPEG" if number else "PNG")  # not all that are called .png are PNG
            lines += [
                {
                    "identifier": f"{name}-{sentence}",
                    "sentence": text,
                    "label": str(truths[sentence]),
                    "left_url": f"http://images.test/{name}-0",
                    "right_url": f"http://images.test/{name}-1",
                }
                for sentence, text in SENTENCES.items()
            ]
        (raw / "data").mkdir(exist_ok=True)
        (raw / "data" / f"{split}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


WRITERS = {
    "okvqa": write_okvqa,
    "gqa": write_gqa,
    "gqa-vlt5": write_gqa,
    "vizwiz": write_vizwiz,
    "flickr30k": write_flickr30k,
    "nocaps": write_nocaps,
    "scienceqa": write_scienceqa,
    "nlvr2": write_nlvr2,
}
