"""The best checkpoint is kept by a score that can tell good predictions from bad ones, or by the one asked for."""

import json
import logging
import shutil

import pytest

from dept_vl.cli import main
from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import Reference
from dept_vl.reports.text import describe_training
from dept_vl.runs.selection import check_data, choose_selection, read_selection
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train
from tests.conftest import tiny_vqa_rows

TEN = [Reference(["yes"] * 10), Reference(["no"] * 10)]
ONE = [Reference(["yes"]), Reference(["no"])]
TWO = [Reference(["yes", "no"]), Reference(["no", "no"])]


def choose(references, task="vqa", best_metric=None):
    config = load_config(None, {"task": task, "loop.best_metric": best_metric})
    return choose_selection(config, get_task(task).under(config.data.protocol), references)


@pytest.mark.parametrize(
    ("references", "metric"),
    [(TEN, "vqa_accuracy"), (ONE, "exact_match"), (TWO, "vqa_soft_accuracy"), ([*TEN, *ONE[:1]], "vqa_accuracy")],
)
def test_the_score_of_vqa_is_the_one_that_fits_most_questions(references, metric):
    selection = choose(references)
    assert selection.metric == metric
    assert selection.evaluators[0] == "vqa-accuracy"


@pytest.mark.parametrize(
    ("task", "references", "metric"),
    [
        ("cola", [Reference(["1"])] * 3, "accuracy"),
        ("cola", [Reference(["1"]), Reference(["0"])], "matthews_correlation"),
        ("stsb", [Reference(["1.0"])] * 3, "accuracy"),
        ("coco", [Reference(["a cat"])], "ROUGE-L"),
        ("coco", [Reference(["a cat"]), Reference(["a dog"])], "CIDEr"),
    ],
)
def test_a_score_that_is_constant_picks_no_checkpoint(task, references, metric):
    assert choose(references, task).metric == metric


@pytest.mark.parametrize(
    ("asked", "metric", "evaluator"),
    [
        ("exact-match", "exact_match", "exact-match"),
        ("vqa_accuracy_legacy_vlt5", "vqa_accuracy_legacy_vlt5", "vqa-accuracy-legacy-vlt5"),
        ("VQA_accuracy", "vqa_accuracy", "vqa-accuracy"),
    ],
)
def test_the_score_asked_for_is_taken_by_either_name(asked, metric, evaluator):
    selection = choose(ONE, best_metric=asked)
    assert selection.metric == metric
    assert evaluator in selection.evaluators


def test_a_score_of_the_tasks_own_evaluator_needs_no_other():
    assert choose([Reference(["a cat"])] * 2, "coco", "bleu-4").evaluators == ("cider", "bleu", "rouge-l")


@pytest.mark.parametrize("asked", ["loss", "Loss"])
def test_the_loss_is_no_score_and_lower_is_better(asked):
    selection = choose(TEN, best_metric=asked)
    assert (selection.metric, selection.evaluators) == ("loss", get_task("vqa").evaluators)
    assert selection.lower_is_better
    assert not choose(TEN).lower_is_better


@pytest.mark.parametrize(("metric", "better"), [("loss", 0.5), ("vqa_accuracy", 2.0)])
def test_what_is_better_is_one_way_in_runs_and_among_runs(metric, better):
    selection = choose(TEN, best_metric=metric)
    assert selection.is_better(1.0, None)
    assert selection.is_better(better, 1.0)
    assert not selection.is_better(1.0, 1.0)
    assert not selection.is_better(1.0, better)
    assert selection.best([("a", 1.0), ("b", better), ("c", better)], lambda pair: pair[1])[0] == "b"


@pytest.mark.parametrize(
    ("metric", "best", "said"),
    [
        ("CIDEr", None, "step 1,200: CIDEr on val 110.0 x 100, as papers print it (the best so far)"),
        ("CIDEr", 1.0, "step 1,200: CIDEr on val 110.0 x 100, as papers print it (the best so far)"),
        ("CIDEr", 1.2, "step 1,200: CIDEr on val 110.0 x 100, as papers print it (the best is 120.0 at step 600)"),
        ("loss", 1.2, "step 1,200: loss on val 1.100 nats a token (the best so far)"),
        ("loss", 1.0, "step 1,200: loss on val 1.100 nats a token (the best is 1.000 at step 600)"),
    ],
)
def test_an_evaluation_s_line_says_its_value_and_whether_it_is_the_best(metric, best, said):
    assert choose([Reference(["a cat"])] * 2, "coco", metric).describe(1200, 1.1, best, 600) == said


def test_a_run_picked_by_loss_is_scored_as_usual_and_the_loss_is_no_metric(tiny_data, t5_folder, tmp_path, capsys):
    config = load_config(None, {**settings(t5_folder, tmp_path, tiny_data), "loop.best_metric": "loss"})
    assert "best loss on val" in describe_training(train(config, tiny_data))
    assert main(["eval", "--task", "vqa", "--checkpoint", str(tmp_path / "run")]) == 0
    scores = json.loads((tmp_path / "run" / "results-test.json").read_text())
    assert scores["evaluators"] == ["vqa-accuracy", "vqa-accuracy-legacy-vlt5"]
    capsys.readouterr()
    assert main(["eval", "--task", "vqa", "--checkpoint", str(tmp_path / "run"), "--metric", "loss"]) == 2
    assert "'loss' is no score of predictions: training computes it" in capsys.readouterr().err


def test_a_score_that_is_none_is_refused():
    with pytest.raises(
        ConfigError, match=r"loop\.best_metric: unknown evaluator 'exact_mtch'; did you mean 'exact_mat"
    ):
        choose(ONE, best_metric="exact_mtch")
    with pytest.raises(DataError, match='F1 is for the labels "0" and "1"'):
        choose(ONE, best_metric="f1")


@pytest.fixture
def one_answer(tiny_data, tmp_path):
    """The tiny data, with the first of the ten answers alone."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    for seed, split in enumerate(("train", "val", "test"), start=1):
        rows = [{**row, "references": row["references"][:1]} for row in tiny_vqa_rows(20, seed)]
        write_split(data / "vqa", SplitInfo("vqa", split, str(data)), schema, rows)
    return data


def settings(t5_folder, tmp_path, data):
    return {
        "output_dir": str(tmp_path / "run"), "data.dir": str(data), "model.backbone": str(t5_folder),
        "data.max_source_length": 16, "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4,
        "data.batch_size": 8, "loop.max_steps": 2, "loop.eval_every_steps": 1,
    }  # fmt: skip


def test_training_on_one_answer_a_question_warns_and_keeps_the_best_by_exact_match(
    one_answer, t5_folder, tmp_path, caplog
):
    words = [f"--{key}={value}" for key, value in settings(t5_folder, tmp_path, one_answer).items() if "." in key]
    with caplog.at_level(logging.WARNING):
        assert main(["train", "--task", "vqa", "--output-dir", str(tmp_path / "run"), *words]) == 0
    assert caplog.text.count("val: vqa-accuracy: every question has 1 answer") == 1
    assert "the best checkpoint is kept by exact_match, not by vqa_accuracy" in caplog.text
    assert json.loads((tmp_path / "run" / "training.json").read_text())["metric"] == "exact_match"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"val/vqa_accuracy", "val/exact_match"} <= {key for line in lines for key in line}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert main(["eval", "--task", "vqa", "--checkpoint", str(tmp_path / "run")]) == 0
    assert caplog.text.count("vqa-accuracy, vqa-accuracy-legacy-vlt5: every question has 1 answer") == 1
    scores = json.loads((tmp_path / "run" / "results-test.json").read_text())
    assert scores["evaluators"] == ["vqa-accuracy", "vqa-accuracy-legacy-vlt5", "exact-match"]
    assert scores["metrics"]["vqa_accuracy"] == 0


def test_the_score_asked_for_picks_the_checkpoint(tiny_data, t5_folder, tmp_path):
    config = load_config(None, {**settings(t5_folder, tmp_path, tiny_data), "loop.best_metric": "exact-match"})
    assert read_selection(config, tiny_data).metric == "exact_match"
    assert train(config, tiny_data).metric_name == "exact_match"
    assert json.loads((tmp_path / "run" / "training.json").read_text())["metric"] == "exact_match"


def test_rows_that_fit_are_not_warned_about(tiny_data, t5_folder, tmp_path, caplog):
    check_data(load_config(None, settings(t5_folder, tmp_path, tiny_data)), tiny_data, ["train", "val"])
    assert caplog.text == ""


def test_captions_without_a_word_are_refused_before_training(tiny_data, t5_folder, tmp_path, capsys):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "coco").mkdir()
    for split in ("train", "val"):
        row = {"example_id": 1, "image_id": 1, "image": "a.jpg", "targets": ["a"], "target_weights": [1.0]}
        info = SplitInfo("coco", split, str(data))
        write_split(data / "coco", info, manifest_schema(images=True), [{**row, "references": ["...", "!"]}])
    words = ["--data-dir", str(data), "--output-dir", str(tmp_path / "run"), "--model.backbone", str(t5_folder)]
    assert main(["train", "--task", "coco", *words]) == 2
    assert "no reference caption has a word, as those of image 1: '...'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
