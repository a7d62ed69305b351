"""Runs on own rows: results call rows as their owner does, and a split without answers is answered, not scored."""

import json
import shutil

import pytest
import yaml

from dept_vl.cli import main
from dept_vl.errors import DataError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.inference.inputs import read_inputs
from dept_vl.inference.prediction_files import check_output
from dept_vl.reports.text import describe_training
from dept_vl.settings.load import load_config
from dept_vl.tasks.declared import make_task
from dept_vl.training.trainer import train
from tests.data_prep.own_rows import declare_text, prepared, write_csv

TASK = {"name": "mine", "kind": "text", "template": "what is {word}", "target": "answer", "id": "key"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, t5_folder):
    """A run of two steps on rows of which the test split has no answers."""
    root = tmp_path_factory.mktemp("own")
    rows = [{"key": f"w-{n}", "word": f"red {n}", "answer": "red"} for n in range(12)]
    write_csv(root / "rows" / "train.csv", rows)
    write_csv(root / "rows" / "val.csv", rows[:3])
    write_csv(root / "rows" / "test.csv", [{"key": "t-1", "word": "blue"}, {"key": "t-2", "word": "red"}])
    (root / "mine.yaml").write_text(yaml.safe_dump(TASK))
    settings = {
        "task": str(root / "mine.yaml"), "data.dir": str(root / "data"), "output_dir": str(root / "run"),
        "model.backbone": str(t5_folder), "data.max_source_length": 16, "tuner.budget_tokens": 20,
        "tuner.num_virtual_tokens": 4, "data.batch_size": 4, "loop.max_steps": 2, "loop.eval_every_steps": 2,
    }  # fmt: skip
    config = load_config(None, settings)
    prepared(config.resolve_task().declaration, root / "data", rows=root / "rows")
    train(config, root / "data")
    return root


def evaluate(folder, split):
    config = load_config(folder / "run" / "config.yaml", {})
    return evaluate_run(config, folder / "data", folder / "run", split=split)


def test_results_have_the_ids_of_the_rows(folder):
    files = evaluate(folder, "val").files
    assert [one["id"] for one in json.loads(files["predictions"].read_text())] == ["w-0", "w-1", "w-2"]
    assert [json.loads(line)["id"] for line in files["answers"].read_text().splitlines()] == ["w-0", "w-1", "w-2"]


def test_a_split_without_answers_is_not_scored(folder):
    with pytest.raises(DataError, match="has an answer to score against; `dept-vl predict --rows`"):
        evaluate(folder, "test")
    assert not (folder / "run" / "results-test.json").exists()


def test_a_run_is_resumed_on_its_own_rows_alone(folder, tmp_path):
    """Also where they were prepared anew and lie elsewhere; only other rows are refused."""
    config = load_config(folder / "run" / "config.yaml", {})
    declaration = config.resolve_task().declaration
    prepared(declaration, tmp_path / "same", rows=folder / "rows")
    assert train(config, tmp_path / "same", resume=True).progress.step == 2
    shutil.copytree(folder / "rows", tmp_path / "rows")
    with open(tmp_path / "rows" / "train.csv", "a") as file:
        file.write("w-99,red 99,red\r\n")
    prepared(declaration, tmp_path / "other", rows=tmp_path / "rows")
    message = r"cannot resume .*run: the rows of train.* are others than those it was started with; .* --init-from"
    with pytest.raises(DataError, match=message):
        train(config, tmp_path / "other", resume=True)


def test_what_is_printed_to_score_a_run_is_a_command_that_scores_it(folder, capsys):
    result = train(load_config(folder / "run" / "config.yaml", {}), folder / "data", resume=True)
    command = describe_training(result).splitlines()[-1].removeprefix("score it:").split()
    assert main([*command[1:], "--split", "val"]) == 0
    assert "mine val: 3 scored" in capsys.readouterr().out


def test_rows_given_to_score_a_run_stand_in_place_of_its_data(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path))
    words = ["eval", "--checkpoint", str(folder / "run"), "--rows", str(folder / "rows"), "--split", "val"]
    assert main([*words, "--output", str(tmp_path / "scores.json")]) == 0
    assert "mine val: 3 scored" in capsys.readouterr().out


def test_inputs_to_predict_may_bring_such_ids(tmp_path):
    task = make_task(declare_text(template="{word}"))
    (tmp_path / "in.jsonl").write_text('{"word": "a", "id": "w-1"}\n{"word": "b"}\n')
    inputs = read_inputs(task, file=tmp_path / "in.jsonl", columns={})
    assert [one.example_id for one in inputs] == ["w-1", None]
    with pytest.raises(DataError, match=r'line 2: needs "id", a whole number or a text'):
        check_output(tmp_path / "out.json", task, inputs)
