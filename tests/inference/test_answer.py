"""Answers by scoring labels and by generating, through training, evaluation and prediction."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.speed.workload import write_colour_work
from dept_vl.cli import main
from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.data.sampler import BatchRequest
from dept_vl.errors import ConfigError
from dept_vl.inference.answer import Answerer, agreement, answer_split
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.build import build_model
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.likeliest import likeliest
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.open import open_run
from dept_vl.settings.load import load_config
from dept_vl.tasks import TASKS, Task, get_task
from dept_vl.tasks.base import Protocol
from tests.conftest import tiny_vqa_rows
from tests.models.language.causal_folders import save_tiny_gpt2, save_tiny_llama

LABELS = ("yes", "no", "red", "two")


def template(row):
    return f"what : {row['question']}"


def tiny_task(labels):
    """A text task with one protocol and these labels."""
    protocol = Protocol(template, golds=lambda row: [], splits={}, split_sizes={}, labels=labels)
    return Task(
        name="tiny-text", template=template, evaluators=("vqa-accuracy",), primary_metric="vqa_accuracy",
        max_source_length=16, max_target_length=4, paper="none", input_columns=("question",),
        variants={"fixed": protocol},
    )  # fmt: skip


TASK = tiny_task(LABELS)


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(TASKS, TASK.name, TASK)
    return TASK


@pytest.fixture(scope="module")
def text_data(tmp_path_factory):
    """A prepared task without images."""
    data_dir = tmp_path_factory.mktemp("text")
    folder = data_dir / f"{TASK.name}.fixed"
    folder.mkdir()
    schema = manifest_schema(images=False, text_columns=("question", "answer_type", "question_type"))
    for seed, (split, size) in enumerate({"train": 30, "val": 10, "test": 20}.items(), start=1):
        rows = [{k: v for k, v in row.items() if k not in ("image", "image_id")} for row in tiny_vqa_rows(size, seed)]
        write_split(folder, SplitInfo(TASK.name, split, None, "fixed"), schema, rows)
    return data_dir


@pytest.fixture(scope="module", params=["t5", "gpt2", "llama"])
def folder(request, t5_folder, tmp_path_factory):
    if request.param == "t5":
        return t5_folder
    save = {"gpt2": save_tiny_gpt2, "llama": save_tiny_llama}[request.param]
    return save(tmp_path_factory.mktemp(request.param))


def settings(folder, run_dir):
    return {
        "task": TASK.name, "output_dir": str(run_dir), "model.backbone": str(folder), "tuner.budget_tokens": 20,
        "tuner.num_virtual_tokens": 4, "data.batch_size": 8, "data.eval_batch_size": 8, "loop.max_steps": 2,
        "loop.eval_every_steps": 2,
    }  # fmt: skip


def arguments(folder, run_dir, data_dir, task=TASK.name):
    given = settings(folder, run_dir)
    del given["task"], given["output_dir"]
    named = ["--task", task, "--output-dir", str(run_dir), "--data-dir", str(data_dir)]
    return [*named, *(text for key, value in given.items() for text in (f"--{key}", str(value)))]


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_auto_scores_where_there_are_labels_and_generates_elsewhere():
    config = load_config(None, {"task": TASK.name})
    assert choose_decoding(config, TASK.under("fixed")).method == "score"
    assert choose_decoding(config, TASK.under("fixed")).labels == LABELS
    assert choose_decoding(config, TASK.under("fixed"), "generate").labels == ()
    assert choose_decoding(load_config(None, {"task": "vqa"}), get_task("vqa")).method == "generate"


def test_scoring_a_task_of_free_text_is_refused():
    config = load_config(None, {"decode.method": "score"})
    with pytest.raises(ConfigError, match=r"decode\.method: 'score' needs a label set, and task 'vqa' answers with"):
        choose_decoding(config, get_task("vqa"))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_split_is_answered_with_the_label_of_the_least_loss(folder, text_data, tmp_path, batch_size):
    config = load_config(None, settings(folder, tmp_path))
    parts = open_run(config, text_data, ("test",))
    model, codec, dataset = parts.model.eval(), parts.codec, parts.datasets["test"]
    answerer = Answerer(model, codec, None, parts.decoding)
    predictions = answer_split(answerer, dataset, batch_size=batch_size).predictions
    for source, prediction in zip(dataset.sources(range(20)), predictions, strict=True):
        ids = torch.tensor(codec.source_ids([source], 16))
        targets = [torch.tensor([label]) for label in codec.target_ids(LABELS)]
        losses = [model(ids, torch.ones_like(ids), t).loss_per_example.item() * t.shape[1] for t in targets]
        assert prediction == LABELS[losses.index(min(losses))]


def test_how_sure_a_model_is_of_a_label_is_written_beside_its_answer(t5_folder, text_data, tmp_path):
    assert main(["train", *arguments(t5_folder, tmp_path / "run", text_data)]) == 0
    config = load_config(None, {**settings(t5_folder, tmp_path / "run"), "data.dir": str(text_data)})
    evaluate_run(config, text_data, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers-test.jsonl").read_text().splitlines()]
    parts = open_run(config, text_data, ("test",), adapter=tmp_path / "run")
    answerer = Answerer(parts.model.eval(), parts.codec, None, parts.decoding)
    batch = parts.datasets["test"].batch(BatchRequest(0, tuple(range(20)), is_last_of_step=True, global_rows=20))
    expected = answerer.confidences(batch, [line["prediction"] for line in lines])
    assert [line["confidence"] for line in lines] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beams", [1, 2])
def test_it_is_written_beside_greedy_answers(t5_folder, text_data, tmp_path, beams):
    assert main(["train", *arguments(t5_folder, tmp_path / "run", text_data)]) == 0
    given = {"decode.method": "generate", "decode.num_beams": beams, "data.dir": str(text_data)}
    config = load_config(None, {**settings(t5_folder, tmp_path / "run"), **given})
    evaluate_run(config, text_data, tmp_path / "run", output=tmp_path / "generated.json")
    lines = [json.loads(line) for line in (tmp_path / "generated-answers.jsonl").read_text().splitlines()]
    assert all(("confidence" in line) == (beams == 1) for line in lines)
    assert all(0 < line.get("confidence", 0.5) < 1 for line in lines)


ECHO = """
import sys
from pathlib import Path
import torch
from accelerate.utils import gather_object
from dept_vl.runs.open import open_run
from dept_vl.settings.load import load_config
from dept_vl.inference.answer import Answer, answer_split
from dept_vl.system.processes import leave_launch, process_state

data = Path(sys.argv[1])
process_state()  # joins the launch

class Echo:
    model, calls = torch.nn.Module(), 0
    model.backbone = torch.nn.Module()

    def answer(self, batch):
        self.calls += 1
        return [Answer(f"row {number}") for number in batch.example_ids]

config = load_config(None, {"task": "cola", "model.backbone": "demo", "tuner.allow_nearest": True})
dataset = open_run(config, data, ("test",)).datasets["test"]
for limit in (1, 2, 5, 7, None):
    echo = Echo()
    answers = answer_split(echo, dataset, batch_size=2, limit=limit).predictions
    assert answers == [f"row {number}" for number in range(limit or 256)], (limit, answers)
    calls = gather_object([echo.calls])
    assert calls[0] == calls[1] >= 1, (limit, calls)
leave_launch()
"""


@pytest.mark.distributed
def test_two_processes_answer_every_row_once_in_as_many_batches_each(tmp_path):
    """Five rows in batches of two are two batches for the first process and one for the second; one row is none."""
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    write_colour_work(tmp_path / "data", rows=4)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    done = subprocess.run([*command, str(tmp_path / "data")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_agreement_is_the_share_of_rows_answered_alike(folder, tmp_path):
    config = load_config(None, settings(folder, tmp_path))
    codec = build_model(config.model, config.tuner, max_source_length=16, feature_dim=None, seed=0)[1]
    assert agreement(["yes", "no", "red", "red"], ["yes", "no", "blue", "red cube"], codec, LABELS) == 0.5


def test_train_evaluate_and_predict_a_text_task(folder, text_data, tmp_path, capsys):
    run_dir = tmp_path / "run"
    code, out, error = run(capsys, "train", *arguments(folder, run_dir, text_data))
    assert code == 0, error
    assert "decode: score) at step 2" in out
    code, out, error = run(capsys, "eval", "--checkpoint", run_dir, "--decode-agreement")
    assert code == 0, error
    assert "decode: score" in out
    results = json.loads((run_dir / "results-test.json").read_text())
    assert results["decode"] == "score"
    assert f"give the same answer in {100 * results['decode_agreement']:.1f} % of rows" in out
    predictions = json.loads((run_dir / "predictions-test.json").read_text())
    assert {prediction["prediction"] for prediction in predictions} <= set(LABELS)
    code, out, error = run(capsys, "eval", "--checkpoint", run_dir, "--decode.method", "generate")
    assert code == 0, error
    assert "decode: generate" in out
    (other,) = run_dir.glob("results-test-*.json")  # other settings than the run's own replace nothing of it
    assert json.loads(other.read_text())["decode"] == "generate"
    assert json.loads((run_dir / "results-test.json").read_text()) == results
    output = tmp_path / "answers.jsonl"
    code, out, error = run(
        capsys, "predict", "--checkpoint", run_dir, "--column", "question=is the cube red ?", "--output", output
    )
    assert code == 0, error
    answer = json.loads(output.read_text())
    assert set(answer) == {"columns", "answers", "log_likelihoods"}
    assert answer["columns"] == {"question": "is the cube red ?"}
    best = max(answer["log_likelihoods"], key=answer["log_likelihoods"].get)
    assert answer["answers"] == {"label": best}
    assert f"label: {best}" in out
    asked = tmp_path / "ask.jsonl"
    asked.write_text('{"question": "is the cube red ?"}\n{"question": "how many ?"}\n')
    code, out, error = run(
        capsys, "predict", "--checkpoint", run_dir, "--input", asked, "--output", output, "--decode.method", "generate"
    )
    assert code == 0, error
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [set(answer["answers"]) for answer in answers] == [{"greedy", "beam 5"}] * 2


def test_bad_predictions_of_a_text_task_are_one_message(text_data, t5_folder, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert run(capsys, "train", *arguments(t5_folder, run_dir, text_data))[0] == 0
    (tmp_path / "ask.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "list.jsonl").write_text('["x"]\n')
    cases = {
        ("--image", "x.jpg"): "--image: task 'tiny-text' reads text alone",
        (): "needs a question; give --question TEXT",
        ("--column", "thing=x"): "--column thing: task 'tiny-text' takes no such column (it takes: question)",
        ("--column", "question"): "--column: expected NAME=VALUE",
        ("--input", tmp_path / "absent.jsonl"): "absent.jsonl: cannot be read",
        ("--input", tmp_path / "list.jsonl"): "list.jsonl, line 1: expected an object of columns",
        ("--input", tmp_path / "ask.jsonl"): "ask.jsonl, line 1: task 'tiny-text' needs a question",
        ("--question", "red ?", "--sheet", tmp_path / "s.png"): "--sheet: draws images",
        (
            "--question",
            "red " * 50,
            "--data.on_long",
            "error",
        ): "1 of 1 source texts have more than data.max_source_len",
    }
    for words, message in cases.items():
        code, _, error = run(capsys, "predict", "--checkpoint", run_dir, *words)
        assert (code, message in error) == (2, True), error


def test_decode_agreement_of_a_task_of_free_text_is_refused(tiny_data, t5_folder, tmp_path, capsys):
    words = arguments(t5_folder, tmp_path / "run", tiny_data, task="vqa")
    assert run(capsys, "train", *words, "--data.max_source_length", "16")[0] == 0
    code, _, error = run(capsys, "eval", "--checkpoint", tmp_path / "run", "--decode-agreement")
    assert (code, "needs a label set" in error) == (2, True)


@pytest.mark.parametrize("save", [save_tiny_gpt2, save_tiny_llama])
def test_a_decoder_only_backbone_is_trained_and_scored_on_images(save, tiny_data, tmp_path, capsys):
    run_dir = tmp_path / "run"
    words = arguments(save(tmp_path / "backbone"), run_dir, tiny_data, task="vqa")
    code, _, error = run(
        capsys, "train", *words, "--data.max_source_length", "16", "--tuner.row_alignment", "last-token"
    )
    assert code == 0, error
    code, out, error = run(capsys, "eval", "--checkpoint", run_dir)
    assert code == 0, error
    assert "decode: generate" in out
    described = json.loads((run_dir / "adapter_config.json").read_text())
    assert (described["answer_cue"], described["answer_form"]) == ("\nAnswer:", "plain")
    assert described["tuner"]["row_alignment"] == "last-token"


def test_labels_are_checked_before_training(text_data, t5_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, TASK.name, tiny_task(("yes", "yes ")))
    code, _, error = run(capsys, "train", *arguments(t5_folder, tmp_path / "run", text_data))
    assert (code, "cannot tell the labels 'yes' and 'yes ' apart" in error) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["score", "generate"])
def test_the_likeliest_answers_have_the_probability_of_their_texts(folder, text_data, tmp_path, method):
    config = load_config(None, {**settings(folder, tmp_path), "decode.method": method, "decode.max_new_tokens": 8})
    parts = open_run(config, text_data, ("test",))
    answerer = Answerer(parts.model.eval(), parts.codec, None, parts.decoding)
    batch = parts.datasets["test"].batch(BatchRequest(0, tuple(range(6)), is_last_of_step=True, global_rows=6))
    inputs, backbone = (batch.input_ids, batch.attention_mask), parts.model.backbone
    with parts.model.answering(*inputs) as joint:
        alone = answerer.answer_joint(joint)
        answers = answerer.with_likeliest(joint, alone, 3)
        written, _ = likeliest(backbone, joint, number=3, max_new_tokens=parts.decoding.max_new_tokens)
    assert [replace(one, likeliest=()) for one in answers] == alone
    for row, answer in enumerate(answers):
        expected = dict.fromkeys([answer.text], 0.0) if method == "generate" else {}
        for ids in written[row].tolist() if method == "generate" else parts.codec.target_ids(LABELS):
            whole = ids[: ids.index(1) + 1] if 1 in ids else ids
            text = parts.codec.decode(torch.tensor([ids]))[0] if method == "generate" else LABELS[len(expected)]
            score = parts.model.score_labels(*(one[row : row + 1] for one in inputs), labels=LabelTrie.build([whole]))
            expected[text] = expected.get(text, 0.0) + math.exp(score.item())
        if not expected[answer.text]:
            expected[answer.text] = answerer.confidences(batch, [answer.text] * 6)[row]
        total = sum(expected.values()) if method == "score" else 1.0
        ranked = sorted(((share / total, text) for text, share in expected.items()), reverse=True)
        ranked = ranked if method == "generate" else ranked[:3]
        assert [one.text for one in answer.likeliest] == [text for _, text in ranked]
        assert [one.probability for one in answer.likeliest] == pytest.approx([p for p, _ in ranked], rel=1e-4)
