import json

import numpy as np
import pytest

from dept_vl.data.manifest import SplitInfo, manifest_schema, task_folder, write_split
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.experiments.plan import plan_transfer
from dept_vl.experiments.transfer import transfer
from dept_vl.reports.paper_tables import read_outcome
from dept_vl.reports.text import describe_transfer
from dept_vl.settings.load import load_config
from dept_vl.training.trainer import train
from tests.experiments.conftest import written_at

WORDS = ("red", "blue", "big", "small", "cube", "ball", "left", "green")


@pytest.fixture(scope="module")
def text_data(tmp_path_factory):
    """Three prepared tasks of two classes: is the text about something red?"""
    data_dir = tmp_path_factory.mktemp("text")
    tasks = {"cola": ("sentence",), "sst2": ("sentence",), "rte": ("sentence1", "sentence2")}
    for number, (task, columns) in enumerate(tasks.items()):
        folder = task_folder(data_dir, task, "fixed")
        folder.mkdir()
        for place, (split, size) in enumerate({"train": 40, "val": 12, "test": 12}.items()):
            rng = np.random.default_rng([number, place])
            rows = []
            for row in range(size):
                texts = {column: " ".join(rng.choice(WORDS, size=4)) for column in columns}
                label = str(int("red" in texts[columns[0]].split()))
                golds = {"targets": [label], "target_weights": [1.0], "references": [label]}
                rows.append({"example_id": row, **texts, **golds})
            schema = manifest_schema(images=False, text_columns=columns)
            write_split(folder, SplitInfo(task, split, protocol="fixed"), schema, rows)
    return data_dir


@pytest.fixture
def settings(base, text_data, tmp_path):
    """Dotted settings of short runs on the prepared text tasks."""
    kept = {key: value for key, value in base.items() if key not in ("task", "data.dir")}
    return {**kept, "data.dir": str(text_data), "tuner.num_virtual_tokens": 4, "output_dir": str(tmp_path / "transfer")}


def test_the_best_source_on_validation_is_tested_beside_the_control(settings, text_data, tmp_path):
    target, sources = plan_transfer("cola", ["sst2", "rte"], None, {**settings, "data.few_shot": 8})
    assert [config.data.few_shot for config in sources.values()] == [None, None]
    result = transfer(target, sources, text_data, seeds=[0, 1])
    written = json.loads((tmp_path / "transfer" / "transfer.json").read_text())
    assert set(written["starts"]) == {"sst2", "rte", "scratch"}
    means = {name: written["starts"][name]["val"]["mean"] for name in ("sst2", "rte")}
    assert means[written["best_source"]] == max(means.values())
    tested = {name for name, start in written["starts"].items() if start["test"]}
    assert tested == {written["best_source"], "scratch"}
    run = json.loads((tmp_path / "transfer" / "from-sst2" / "seed-1" / "run.json").read_text())
    assert run["init"]["from"] == str(tmp_path / "transfer" / "source-sst2")
    assert "chosen on val" in describe_transfer(result)
    outcome = read_outcome(tmp_path / "transfer")
    assert (outcome.task, outcome.few_shot, outcome.protocol, outcome.decode) == ("cola", 8, "fixed", "score")
    assert len(outcome.scores["accuracy"]) == 2


def test_a_source_run_is_reused_and_finished_runs_are_kept(settings, text_data, tmp_path):
    source = load_config(None, {**settings, "task": "sst2", "output_dir": str(tmp_path / "mine")})
    train(source, text_data)
    target, sources = plan_transfer("cola", ["sst2"], None, settings, source_runs=[f"sst2={tmp_path / 'mine'}"])
    before = written_at(tmp_path)
    first = transfer(target, sources, text_data)
    assert not (tmp_path / "transfer" / "source-sst2").exists()
    trained = written_at(tmp_path)
    assert before.items() < trained.items()
    again = transfer(target, sources, text_data, resume=True)
    assert again.best.test == first.best.test
    assert written_at(tmp_path) == trained


def test_prompt_tuning_makes_it_spot(settings, text_data):
    own = {key: value for key, value in settings.items() if not key.startswith("tuner.")}
    spot = {**own, "tuner.name": "prompt-tuning", "tuner.num_virtual_tokens": 6}
    target, sources = plan_transfer("cola", ["sst2"], None, spot)
    assert transfer(target, sources, text_data).best.source == "sst2"


@pytest.mark.parametrize(
    ("target", "sources", "runs", "message"),
    [
        ("cola", ["sst"], [], "unknown task 'sst'; did you mean .*'sst2'"),
        ("cola", ["sst2", "sst2"], [], "a source is given twice"),
        ("cola", ["sst2"], ["qqp=run"], "'qqp' is not among --sources sst2"),
        ("cola", ["sst2"], ["run"], "expected TASK=RUN, got 'run'"),
    ],
)
def test_names_that_do_not_fit_are_refused(target, sources, runs, message):
    with pytest.raises(ConfigError, match=message):
        plan_transfer(target, sources, None, {}, source_runs=runs)


def test_superglue_tasks_have_short_names():
    target, sources = plan_transfer("cb", ["mnli", "record"], None, {}, source_runs=["record=run"])
    assert (target.task, str(target.run_dir)) == ("superglue-cb", "runs/superglue-cb-transfer")
    assert list(sources) == ["mnli", "superglue-record"]
    assert str(sources["superglue-record"]) == "run"


def test_a_source_that_cannot_be_one_leaves_no_folder(settings, text_data, tmp_path):
    target, sources = plan_transfer("cola", ["cola"], None, settings)
    with pytest.raises(ConfigError, match="'cola' is the target itself"):
        transfer(target, sources, text_data)
    target, sources = plan_transfer("cola", ["sst2"], None, settings, source_runs=[f"sst2={tmp_path / 'absent'}"])
    with pytest.raises(CheckpointError, match="no adapter there"):
        transfer(target, sources, text_data)
    assert not target.run_dir.exists()
