"""A text task through the command line: prepare, train, evaluate, under both protocols; and the listing of tasks."""

import json
from dataclasses import replace

import pytest

from dept_vl.cli import main
from dept_vl.tasks import TASKS, get_task, task_names
from tests.data_prep.text_rows import cola_folder, cola_rows, write_rows

TINY = (
    "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
    "--data.batch_size", "4", "--loop.max_steps", "2", "--loop.eval_every_steps", "2",
)  # fmt: skip


def run(capsys, *arguments):
    """Returns (exit code, standard output, standard error) of one command."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def raw(request, tmp_path):
    """Real CoLA rows where there are, made-up ones elsewhere."""
    shared = request.path.parents[2] / "shared" / "data" / "nlp" / "hf" / "glue_cola"
    if not shared.is_dir():
        return cola_folder(tmp_path / "raw", train=40, validation=20)
    import gzip

    for split in ("train", "validation"):
        with gzip.open(shared / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            write_rows(tmp_path / "raw" / f"{split}.jsonl", [json.loads(next(file)) for _ in range(40)])
    return tmp_path / "raw"


@pytest.mark.parametrize("protocol", ["fixed", "paper"])
def test_prepare_train_and_evaluate(capsys, raw, t5_folder, tmp_path, protocol):
    data, run_dir = tmp_path / "data", tmp_path / "run"
    chosen = ["--protocol", protocol] if protocol == "paper" else []
    assert run(capsys, "prepare", "--task", "cola", "--raw", raw, "--out", data, "--subset", *chosen)[0] == 0
    arguments = ["train", "--task", "cola", "--data-dir", data, "--model.backbone", t5_folder, "--output-dir", run_dir]
    chosen = ["--data.protocol", protocol] if protocol == "paper" else []
    code, out, _ = run(capsys, *arguments, *TINY, *chosen)
    assert code == 0
    assert "trained 2 steps" in out
    assert "matthews_correlation on val" in out
    assert f"protocol: {protocol}\n" in (run_dir / "config.yaml").read_text()
    code, out, _ = run(capsys, "eval", "--task", "cola", "--checkpoint", run_dir)
    assert code == 0
    assert f"cola test (protocol {protocol}): " in out
    results = json.loads((run_dir / "results-test.json").read_text())
    assert results["protocol"] == protocol
    assert set(results["metrics"]) == {"matthews_correlation", "accuracy", "invalid"}
    predictions = json.loads((run_dir / "predictions-test.json").read_text())
    assert [sorted(p) for p in predictions] == [["example_id", "prediction"]] * results["num_scored"]
    other = {"fixed": "paper", "paper": "fixed"}[protocol]
    code, _, error = run(capsys, "eval", "--checkpoint", run_dir, "--data.protocol", other)
    assert code == 2
    assert f"was trained under '{protocol}', asked for '{other}'" in error


def test_train_without_data_goes_to_the_hub(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "train", "--task", "cola", "--model.backbone", "demo")
    assert code == 2
    assert "cannot load split 'train' from the hub" in error
    assert "give --raw FOLDER" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--task", "vqa", "--data.protocol", "paper", "--data-dir", "x"], "'vqa' has no protocol 'paper'"),
        (["train", "--task", "cola", "--data.protocol", "papre", "--data-dir", "x"], "data.protocol: "),
        (["train", "--task", "cola", "--data-dir", "demo"], "no embedded demo of task 'cola'"),
        (["train", "--task", "cola", "--data-dir", "absent", "--model.backbone", "demo"], "cola.fixed/train.parquet"),
        (["prepare", "--task", "cola", "--raw", "absent", "--out", "y"], "absent: no such folder of raw files"),
        (["prepare", "--task", "vqa", "--out", "y"], "--raw: task 'vqa' needs the folder of its official files"),
        (["cache-features", "--task", "cola", "--data-dir", "x"], "'cola' has no images"),
        (["tasks", "colla"], "unknown task 'colla'; did you mean 'cola'"),
        (["tasks", "vqa", "--raw", "x"], "--raw: shows rows of text tasks"),
        (["tasks", "cola", "--raw", "x", "--data-dir", "x"], "--raw and --data-dir: give one of them"),
        (["tasks", "cola", "--data-dir", "x"], "no such prepared split"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_message_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_tasks_are_listed_with_sizes_metrics_lengths_and_source(capsys):
    code, out, _ = run(capsys, "tasks")
    assert code == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines()}
    assert lines["cola"] == (
        "cola 8,551 / 521 / 522 matthews-correlation, accuracy 256, 8 nyu-mll/glue cola @bcdcba79d07b"
    )
    assert "scitail (paper) 23,596 / 652 / 652" in " ".join(out.split())
    assert len(out.splitlines()) == 1 + len(task_names()) + 3  # three tasks have other sizes under `paper`


def test_examples_are_shown_as_the_model_sees_them(capsys, tmp_path):
    code, out, _ = run(capsys, "tasks", "winogrande")
    assert code == 0
    assert "made up" in out
    assert "1 paper\n  'sentence: Mira lent Ilse her boat because _ had no boat of her own. option0: Mira " in out
    raw = cola_folder(tmp_path / "raw", train=3, validation=5)
    code, out, _ = run(capsys, "tasks", "cola", "--raw", raw)
    assert out.splitlines()[-2:] == ["3 fixed, paper", f"  'sentence: {cola_rows(3)[2]['sentence']}' -> '0'"]
    run(capsys, "prepare", "--task", "cola", "--raw", raw, "--out", tmp_path / "data", "--subset")
    code, out, _ = run(capsys, "tasks", "cola", "--data-dir", tmp_path / "data")
    assert "1 fixed\n  'sentence: Sentence number 0, " in out
    code, out, _ = run(capsys, "tasks", "vqa")
    assert "1\n  'vqa: What color is the kettle?' -> what people answered" in out


def test_a_task_without_made_up_rows_says_where_to_find_real_ones(capsys, monkeypatch):
    monkeypatch.setitem(TASKS, "third", replace(get_task("vqa"), name="third"))
    code, _, error = run(capsys, "tasks", "third")
    assert code == 2
    assert "task 'third' has no made-up rows to show; give --data-dir DATA for real ones" in error
    assert run(capsys, "tasks")[0] == 0
