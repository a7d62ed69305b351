"""A run of several tasks in the paper's tables, compared, and set back part by part."""

import json

import pytest

from dept_vl.cli import main
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.reports.comparison import compare_runs
from dept_vl.reports.paper_settings import PaperPlace, paper_row
from dept_vl.reports.paper_tables import compare
from dept_vl.reports.scored_answers import count_trained
from dept_vl.reports.scored_runs import read_scored_runs
from dept_vl.settings.load import load_config
from dept_vl.training.trainer import train


@pytest.fixture(scope="module")
def run(t5_folder, mix_data, tmp_path_factory):
    """Settings of a scored run of LoRA on two tasks of Table 1."""
    folder = tmp_path_factory.mktemp("mix") / "run"
    settings = {
        "task": "cola+mnli", "output_dir": str(folder), "model.backbone": str(t5_folder), "tuner.name": "lora",
        "tuner.rank": 2, "data.dir": str(mix_data), "data.max_source_length": 16, "data.batch_size": 8,
        "loop.max_steps": 3, "loop.eval_every_steps": 3,
    }  # fmt: skip
    config = load_config(None, settings)
    train(config, mix_data)
    evaluate_run(config, mix_data, folder)
    return config


def test_each_task_is_scored_in_its_own_cell_of_the_multi_task_row(run):
    runs = read_scored_runs(run.run_dir)
    assert [(one.task, one.together) for one in runs] == [(task, ("cola", "mnli")) for task in ("cola", "mnli")]
    assert {paper_row(one) for one in runs} == {PaperPlace("lora", "multi-task")}
    text = compare("table1", [run.run_dir])
    lines = [line.split() for line in text.splitlines()]
    (here,) = [number for number, words in enumerate(lines) if words == ["not", "in", "the", "paper"]]
    trained = f"{count_trained(run.run_dir) / 2:,.0f}"  # the tasks share them
    printed = [f"{100 * runs[n].scores[name]:.1f}" for n, name in ((1, "accuracy"), (0, "matthews_correlation"))]
    assert lines[here + 1] == ["lora", trained, *printed]


def test_it_is_compared_task_by_task(run, tmp_path):
    found = compare_runs([run.run_dir])
    assert list(found.metrics) == ["cola", "mnli"]
    (row,) = found.methods
    assert row.parameters == count_trained(run.run_dir)


def test_its_parts_are_set_back_for_one_of_its_tasks(run, capsys):
    assert main(["ablate", str(run.run_dir)]) == 2
    assert "was trained on cola, mnli; name the one to ask" in capsys.readouterr().err
    assert main(["ablate", str(run.run_dir), "--task", "mnli", "--split", "test"]) == 0
    written = json.loads((run.run_dir / "ablation-test-mnli.json").read_text())
    assert (written["task"], [one["part"] for one in written["ablated"]]) == ("mnli", ["lora", "lora"])
    scored = json.loads((run.run_dir / "results-test-mnli.json").read_text())
    assert written["trained"]["accuracy"] == scored["metrics"]["accuracy"]
