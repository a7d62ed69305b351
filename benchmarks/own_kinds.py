"""Scores a task of one's own of each kind, on the packaged models and drawn scenes, beside the commonest answer.

    python -m benchmarks.own_kinds [--images 400] [--steps 300] [--seeds 0,1,2]

Seven scenes in ten train, one validates and two test. It prints mean and sample deviation over the seeds; the last
result is in docs/own-data.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dept_vl
from data_prep.demo_world.files import write_scenes
from data_prep.demo_world.scene import COLORS, SHAPES
from dept_vl.settings.declared import check_declaration

Row = dict[str, Any]

_BACKGROUND = re.compile(r"(\w+) background", re.IGNORECASE)
_COLOR = re.compile(rf"\b({'|'.join(COLORS)})\b", re.IGNORECASE)
_SHAPE = re.compile(rf"\b({'|'.join(SHAPES)})\b", re.IGNORECASE)


@dataclass(frozen=True)
class OwnTask:
    """A task of one kind with its rows; each has ``image_id``, which says its split."""

    fields: Row
    rows: Sequence[Row]
    metric: str

    @property
    def target(self) -> str:
        """The column of the answer."""
        return str(self.fields["target"])


def read_tasks(scenes: Path) -> list[OwnTask]:
    """Returns a task of each kind from a folder of drawn scenes."""
    captions: dict[int, list[str]] = {}
    files: dict[int, str] = {}
    for image in json.loads((scenes / "dataset_coco.json").read_text())["images"]:
        captions[image["cocoid"]] = [sentence["raw"] for sentence in image["sentences"]]
        files[image["cocoid"]] = f"{image['filepath']}/{image['filename']}"
    described = [
        {"image_id": number, "image": files[number], "captions": texts, **_facts(texts)}
        for number, texts in captions.items()
    ]
    words = {key: sorted({row[key] for row in described}) for key in ("background", "color")}
    return [
        OwnTask(
            {"name": "own-question", "kind": "question", "image": "image", "target": "answer",
             "template": "vqa: {question}"},
            [{**row, "image": files[row["image_id"]]} for row in _questions(scenes)], "exact_match",
        ),
        OwnTask(
            {"name": "own-caption", "kind": "caption", "image": "image", "target": "captions"}, described, "CIDEr"
        ),
        OwnTask(
            {"name": "own-image-label", "kind": "image-label", "image": "image", "target": "background",
             "labels": words["background"]}, described, "accuracy",
        ),
        OwnTask(
            {"name": "own-text-label", "kind": "text-label", "target": "color", "template": "caption: {text}",
             "labels": words["color"]}, described, "accuracy",
        ),
        OwnTask(
            {"name": "own-text", "kind": "text", "target": "shape", "template": "first shape: {text}"}, described,
            "exact_match",
        ),
    ]  # fmt: skip


def _facts(texts: Sequence[str]) -> Row:
    """Returns what a scene's captions say: its background, and colour and shape of what a caption names first."""
    background = next(found for text in texts if (found := _BACKGROUND.search(text)))
    text = texts[1]
    color, shape = _COLOR.search(text), _SHAPE.search(text)
    assert color is not None
    assert shape is not None
    return {"text": text, "background": background[1].lower(), "color": color[1].lower(), "shape": shape[1].lower()}


def _questions(scenes: Path) -> list[Row]:
    rows = []
    for year in ("train2014", "val2014"):
        questions = json.loads((scenes / f"v2_OpenEnded_mscoco_{year}_questions.json").read_text())["questions"]
        asked = {one["question_id"]: one["question"] for one in questions}
        for one in json.loads((scenes / f"v2_mscoco_{year}_annotations.json").read_text())["annotations"]:
            answer = one["multiple_choice_answer"]
            rows.append({"image_id": one["image_id"], "question": asked[one["question_id"]], "answer": answer})
    return rows


def score(task: OwnTask, scenes: Path, runs: Path, steps: int, seed: int) -> tuple[float, float]:
    """Trains and returns the metric on the test rows, of the model and of the commonest training answer."""
    splits: dict[str, list[Row]] = defaultdict(list)
    for row in task.rows:
        splits["test" if row["image_id"] % 5 == 0 else "val" if row["image_id"] % 10 == 1 else "train"].append(row)
    result = dept_vl.train(
        {
            "config": "demo", "task": task.fields, "seed": seed, "output_dir": runs / f"{task.fields['kind']}-{seed}",
            "loop": {"max_steps": steps, "eval_every_steps": max(1, steps // 3), "trackers": []},
            "data.batch_size": 16,
        },
        splits["train"], splits["val"], splits["test"], images=scenes,
    )  # fmt: skip
    model = dept_vl.load(result.run_dir)
    takes = check_declaration(task.fields, "task").columns
    asked = [
        {name: row[name] for name in takes} | ({"image": scenes / row["image"]} if "image" in task.fields else {})
        for row in splits["test"]
    ]
    references = [row[task.target] for row in splits["test"]]
    answers = [row[task.target] for row in splits["train"]]
    common = Counter(one if isinstance(one, str) else one[0] for one in answers).most_common(1)[0][0]
    by_answers = (model.answer_many(asked), [common] * len(references))
    own, majority = (dept_vl.evaluate(texts, references, task.metric)[task.metric] for texts in by_answers)
    return own, majority


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one line a kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_kinds", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, metavar="N", help="scenes; default: 400")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="of 16 rows; default: 300")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,...", help="default: 0,1,2")
    options = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="dept-vl-own-") as folder:
        scenes, tenth = Path(folder, "scenes"), options.images // 10
        write_scenes(
            scenes, num_train=options.images - 4 * tenth, num_restval=tenth, num_val=tenth, num_test=2 * tenth, seed=3,
            wording="sentences",
        )  # fmt: skip
        print("| kind | metric | score | the commonest answer | seconds a run |\n| --- | --- | --- | --- | --- |")
        for task in read_tasks(scenes):
            started = time.perf_counter()
            seeds = [int(seed) for seed in options.seeds.split(",")]
            pairs = [score(task, scenes, Path(folder, "runs"), options.steps, seed) for seed in seeds]
            spread = statistics.stdev(own for own, _ in pairs) if len(pairs) > 1 else 0.0
            seconds = (time.perf_counter() - started) / len(pairs)
            print(
                f"| {task.fields['kind']} | {task.metric} | {statistics.mean(own for own, _ in pairs):.3f} ± "
                f"{spread:.3f} | {pairs[0][1]:.3f} | {seconds:.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
