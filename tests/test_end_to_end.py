"""The whole path through the command line, on drawn scenes and on photographs, with the packaged backbone."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from data_prep.demo_world.files import write_scenes
from dept_vl.cli import main
from dept_vl.data.manifest import open_split
from dept_vl.tasks import get_task
from tests.data_prep.raw_files import write_json

LOSSES = {"vqa": [0.8906, 1.8544], "coco": [6.6065, 5.3960]}
"""First two training losses of the packaged backbone on the fixture's scenes: a change of any stage moves them."""

RATES = ("--lr", "1.0", "--lowrank-lr", "0.1")
"""Those that the losses belong to."""

SIZES = {"num_train": 10, "num_restval": 2, "num_val": 4, "num_test": 6}
BASE = ("--config", "demo", "--loop.eval_every_steps", "2", "--loop.log_every_steps", "1", "--data.batch_size", "8")


def run(*arguments) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def losses(run_dir: Path) -> list[float]:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Scenes drawn in the official formats, prepared and encoded by the ordinary commands."""
    root = tmp_path_factory.mktemp("demo")
    write_scenes(root / "raw", seed=1, **SIZES)
    for task in ("vqa", "coco"):
        run("prepare", "--task", task, "--raw", root / "raw", "--out", root / "data")
    run("cache-features", "--task", "vqa", "--config", "demo", "--data-dir", root / "data", "--workers", "0")
    return root


@pytest.mark.parametrize("task", ["vqa", "coco"])
def test_train_evaluate_and_score_the_written_predictions(demo, tmp_path, capsys, task):
    data, run_dir = demo / "data", tmp_path / "run"
    own = ("--data-dir", data, "--output-dir", run_dir, "--loop.max_steps", "2")
    run("train", "--task", task, *BASE, *RATES, *own)
    assert losses(run_dir) == pytest.approx(LOSSES[task], abs=0.01)
    run("eval", "--task", task, "--checkpoint", run_dir)
    results = json.loads((run_dir / "results-test.json").read_text())
    test = open_split(data, get_task(task), "test")
    assert results["num_scored"] == len(test)
    predictions = json.loads((run_dir / "predictions-test.json").read_text())
    key = {"vqa": "question_id", "coco": "image_id"}[task]
    assert [p[key] for p in predictions] == test["example_id"][:]
    capsys.readouterr()
    references = {
        "vqa": [
            "--questions", demo / "raw" / "v2_OpenEnded_mscoco_val2014_questions.json",
            "--annotations", demo / "raw" / "v2_mscoco_val2014_annotations.json",
        ],
        "coco": ["--references", demo / "raw" / "annotations" / "captions_val2014.json"],
    }[task]  # fmt: skip
    again = tmp_path / "again.json"
    run(
        "eval", "--task", task, "--predictions", run_dir / "predictions-test.json", *references,
        "--allow-missing", "--output", again,
    )  # fmt: skip
    assert json.loads(again.read_text())["num_scored"] >= len(test)


def test_images_encoded_on_the_fly_train_as_cached_ones_do(demo, tmp_path):
    common = ("train", "--task", "vqa", *BASE, "--data-dir", demo / "data", "--loop.max_steps", "3")
    run(*common, "--output-dir", tmp_path / "cached")
    run(*common, "--output-dir", tmp_path / "fresh", "--data.visual_features", "encode")
    assert losses(tmp_path / "fresh") == pytest.approx(losses(tmp_path / "cached"), abs=2e-3)


def test_predictions_and_a_sheet_of_drawn_scenes(demo, tmp_path, capsys):
    run_dir = tmp_path / "run"
    run("train", "--task", "vqa", *BASE, "--data-dir", demo / "data", "--output-dir", run_dir, "--loop.max_steps", "1")
    images = sorted((demo / "raw" / "val2014").iterdir())[:3]
    lines = [{"image": str(image), "question": f"What color is object {n}?"} for n, image in enumerate(images)]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    run(
        "predict", "--checkpoint", run_dir, "--image", tmp_path / "ask.jsonl", "--beams", "3",
        "--sheet", tmp_path / "sheet.png", "--output", tmp_path / "answers.jsonl",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.count("greedy") == printed.count("beam 3:") == 3
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["image"] for answer in answers] == [str(image) for image in images]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 224
    (tmp_path / "ask.jsonl").write_text(json.dumps({"image": str(images[0]), "question": 5}))
    assert main(["predict", "--checkpoint", str(run_dir), "--image", str(tmp_path / "ask.jsonl")]) == 2
    assert "column 'question' should be a text, found int '5'" in capsys.readouterr().err
    assert main(["predict", "--checkpoint", str(run_dir), "--image", str(images[0])]) == 2
    assert "needs a question; give --question TEXT" in capsys.readouterr().err


def test_a_corrupt_image_stops_the_cache_or_is_counted_as_wrong(demo, tmp_path, capsys):
    raw, data = tmp_path / "raw", tmp_path / "data"
    shutil.copytree(demo / "raw", raw)
    run("prepare", "--task", "vqa", "--raw", raw, "--out", data)
    victim = open_split(data, get_task("vqa"), "test")[0]
    path = raw / victim["image"]
    path.write_bytes(path.read_bytes()[:200])
    cache = ["cache-features", "--task", "vqa", "--config", "demo", "--data-dir", str(data), "--workers", "0"]
    assert main(cache) == 2
    assert path.name in capsys.readouterr().err
    assert not list(data.glob("features/*/index.json"))
    run(*cache, "--on-error", "skip")
    ledger = next(data.glob("features/*/skipped.jsonl")).read_text()
    assert path.name in ledger
    run_dir = tmp_path / "run"
    run("train", "--task", "vqa", *BASE, "--data-dir", data, "--output-dir", run_dir, "--loop.max_steps", "1")
    run("eval", "--checkpoint", run_dir)
    test = open_split(data, get_task("vqa"), "test")
    assert json.loads((run_dir / "results-test.json").read_text())["num_scored"] == len(test)
    answers = {p["question_id"]: p["answer"] for p in json.loads((run_dir / "predictions-test.json").read_text())}
    on_victim = {row["example_id"] for row in test if row["image_id"] == victim["image_id"]}
    assert {question_id for question_id, answer in answers.items() if not answer} >= on_victim


def test_an_adapter_refuses_features_of_another_encoder(demo, tmp_path, capsys):
    run_dir = tmp_path / "run"
    run("train", "--task", "vqa", *BASE, "--data-dir", demo / "data", "--output-dir", run_dir, "--loop.max_steps", "1")
    image = next((demo / "raw" / "val2014").iterdir())
    arguments = ["predict", "--checkpoint", run_dir, "--image", image, "--question", "What is it?"]
    assert main([str(a) for a in [*arguments, "--model.image_encoder.pooled_grid", "2"]]) == 2
    assert "the visual features are not those of the training" in capsys.readouterr().err


@pytest.fixture(scope="module")
def official(photographs, tmp_path_factory) -> Path:
    """Photographs with their official questions and captions, laid out as a raw folder.

    The questions are all on train2014 images; every fifth of those is given to val and to test.
    """
    raw = tmp_path_factory.mktemp("official")
    records = list(photographs.records)
    for number, image_id in enumerate(photographs.asked()):
        split = {3: "val", 4: "test"}.get(number % 5, "train")
        name = f"COCO_train2014_{image_id:012d}.jpg"
        records.append({"cocoid": image_id, "split": split, "filepath": "train2014", "filename": name})
    write_json(raw / "dataset_coco.json", {"images": records, "dataset": "coco"})
    for year, is_there in (("train2014", True), ("val2014", False)):
        for key, name in (("questions", f"v2_OpenEnded_mscoco_{year}"), ("annotations", f"v2_mscoco_{year}")):
            content = photographs.read(f"vqa_{key}.json") if is_there else {key: []}
            write_json(raw / f"{name}_{key}.json", content)
    write_json(raw / "annotations" / "captions_val2014.json", photographs.read("captions_images.json"))
    write_json(raw / "annotations" / "captions_train2014.json", {"images": [], "annotations": []})
    return raw


@pytest.mark.parametrize("task", ["vqa", "coco"])
def test_photographs_go_through_every_command(official, photographs, tmp_path, capsys, task):
    photos, data, run_dir = photographs.folder, tmp_path / "data", tmp_path / "run"
    run("prepare", "--task", task, "--raw", official, "--out", data, "--images", photos)
    run("cache-features", "--task", task, "--config", "demo", "--data-dir", data, "--workers", "0")
    own = ("--data-dir", data, "--output-dir", run_dir, "--loop.max_steps", "2")
    run("train", "--task", task, *BASE, *RATES, *own)
    run("eval", "--checkpoint", run_dir)
    test = open_split(data, get_task(task), "test")
    predictions = json.loads((run_dir / "predictions-test.json").read_text())
    key = {"vqa": "question_id", "coco": "image_id"}[task]
    assert [p[key] for p in predictions] == test["example_id"][:]
    files = photographs.files()
    for split in ("train", "val", "test"):
        assert all(row["image"] in files[row["image_id"]] for row in open_split(data, get_task(task), split))
    asked = ["--question", "What is this?"] if task == "vqa" else []
    capsys.readouterr()
    run("predict", "--checkpoint", run_dir, "--image", photos / test[0]["image"], *asked)
    assert "greedy" in capsys.readouterr().out
    references = {
        "vqa": ["--questions", photos / "vqa_questions.json", "--annotations", photos / "vqa_annotations.json"],
        "coco": ["--references", photos / "captions_images.json"],
    }[task]
    predicted = run_dir / "predictions-test.json"
    run("eval", "--task", task, "--predictions", predicted, *references, "--allow-missing")
