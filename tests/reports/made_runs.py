"""Scored runs as `dept-vl eval` leaves them, written by hand: pages of them need no model."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.settings.load import load_config
from dept_vl.system.bounded_reading import hash_file

TYPES = ("yes/no", "number", "other")
METRICS = [
    {"step": 10, "loss": 2.5, "lr/soft_prompt": 0.4, "lr/lowrank": 0.02, "rms/embeddings": 1.2, "rms/prompt": 2.4,
     "rms/update": 0.003},
    {"step": 20, "loss": 1.5, "lr/soft_prompt": 0.2, "lr/lowrank": 0.01, "rms/embeddings": 1.2, "rms/prompt": 2.4,
     "rms/update": 0.006},
    {"step": 20, "val/vqa_accuracy": 51.5, "val/vqa_accuracy/number": 12.5, "val/loss": 1.25},
]  # fmt: skip


def noisy_images(folder: Path, number: int, size=(64, 48)) -> list[str]:
    """Writes images that compress badly, and returns their names."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    names = [f"{index:06d}.jpg" for index in range(number)]
    for index, name in enumerate(names):
        Image.fromarray(np.roll(pixels, 7 * index)).save(folder / name, quality=90)
    return names


def prepared_vqa(folder: Path, rows: int, names: list[str], question="what is it?") -> Path:
    """Writes the test split of VQA, its images below ``images``."""
    (folder / "vqa").mkdir(parents=True, exist_ok=True)
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    write_split(
        folder / "vqa",
        SplitInfo("vqa", "test", str(folder / "images")),
        schema,
        [
            {
                "example_id": row, "image_id": row % len(names), "image": names[row % len(names)],
                "question": f"{question} {row}", "answer_type": TYPES[row % 3], "question_type": question,
                "targets": ["red"], "target_weights": [1.0], "references": ["red"] * 9 + ["rot"],
            }
            for row in range(rows)
        ],
    )  # fmt: skip
    return folder


def vqa_run(folder: Path, data: Path, answers: list[str], tuner="dept", metrics=METRICS, **record) -> Path:
    """Writes a scored run of VQA on `prepared_vqa`'s rows."""
    import pyarrow.parquet as pq

    asked = pq.read_table(data / "vqa" / "test.parquet").to_pylist()
    scores = [100.0 if text == "red" else 30.0 if text == "rot" else 0.0 for text in answers]
    lines = [
        {
            "question_id": row["example_id"], "image": row["image"], "question": row["question"], "answer": text,
            "references": row["references"], "scores": {"vqa_accuracy": score},
        }
        for row, text, score in zip(asked, answers, scores, strict=True)
    ]  # fmt: skip
    config = load_config(None, {"task": "vqa", "tuner.name": tuner, "output_dir": str(folder)})
    mean = sum(scores) / len(scores)
    return _written(folder, lines, ("question_id", "answer"), config, {"vqa_accuracy": mean}, metrics, data, record)


def label_run(
    folder: Path, answers: list[str], golds: list[str], confidences: list[float] | None = None, task="cola", of=None
) -> Path:
    """Writes a scored run of CoLA, or of one task `of` several; the prepared data are gone."""
    lines = [
        {
            "example_id": row, "sentence": f"words {row}", "prediction": text, "references": [gold],
            "scores": {"correct": float(text == gold)},
        }
        for row, (text, gold) in enumerate(zip(answers, golds, strict=True))
    ]  # fmt: skip
    for line, confidence in zip(lines, confidences or [], strict=False):
        line["confidence"] = confidence
    config = load_config(None, {"task": of or task, "output_dir": str(folder)})
    right = sum(line["scores"]["correct"] for line in lines) / len(lines)
    scores = {"matthews_correlation": 0.25, "accuracy": right}
    keys, name = ("example_id", "prediction"), f"test-{task}" if of else "test"
    return _written(folder, lines, keys, config, scores, [], Path("gone"), {}, task, name)


def run_of_two(folder: Path) -> Path:
    """Writes a scored run of CoLA and RTE together."""
    tasks = ("cola", "rte")
    for task in tasks:
        label_run(folder, ["1", "0", "1", "0"], ["1", "0", "0", "0"], task=task, of="+".join(tasks))
    content = {"metrics": {"mean": 75.0}, "results": {task: f"results-test-{task}.json" for task in tasks}}
    (folder / "results-test.json").write_text(json.dumps(content))
    return folder


def _written(folder, lines, keys, config, scores, metrics, data, record, task="vqa", name="test") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    predictions = folder / f"predictions-{name}.json"
    predictions.write_text(json.dumps([{key: line[key] for key in keys} for line in lines]))
    (folder / f"answers-{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    ran = {"command": "dept-vl train --task vqa", "python": "3.11.7", "versions": {"torch": "2.14.1"}, **record}
    (folder / "run.json").write_text(json.dumps(ran))
    content = {
        "task": task, "protocol": config.data.protocol or ("fixed" if task != "vqa" else None), "split": "test",
        "metrics": scores, "config": asdict(config), "num_scored": len(lines),
        "data_dir": str(data), "data": {"rows_sha256": "a" * 64, "complete": False}, "decode": "generate",
        "parameters": {"groups": {"soft_prompt": 600, "lowrank": 400}, "trained": 1000, "all": 100000},
        "sha256": {"predictions": hash_file(predictions)}, "made_by": {**ran, "command": "dept-vl eval"},
    }  # fmt: skip
    (folder / f"results-{name}.json").write_text(json.dumps(content))
    return folder
