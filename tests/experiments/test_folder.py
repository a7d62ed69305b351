"""Who may go on in the folder of several runs."""

import pytest
import yaml

from dept_vl.errors import ConfigError
from dept_vl.experiments.folder import check_experiment, settings_tree
from dept_vl.experiments.plan import transfer_record
from dept_vl.experiments.space import load_plan
from dept_vl.settings.load import load_config

GIVEN = {"task": "cola", "data.dir": "data", "init.from": "runs/a"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    return tmp_path / "exp"


def resume(folder, name, record):
    check_experiment(folder, name, record, resume=True, overwrite=False)


def test_relative_paths_of_an_earlier_version_are_the_same_paths(folder):
    record = settings_tree(load_config(None, GIVEN))
    assert record["data"]["dir"] == str(folder.parent / "data")
    earlier = {**record, "data": {**record["data"], "dir": "data"}, "init": {**record["init"], "from": "./runs/a"}}
    (folder / "seeds.yaml").write_text(yaml.safe_dump(earlier))
    resume(folder, "seeds", record)
    resume(folder, "seeds", settings_tree(load_config(None, {**GIVEN, "data.dir": str(folder / ".." / "data")})))
    with pytest.raises(ConfigError, match=r"data\.dir: the run has 'data' \(seen from .*\), asked for '/"):
        resume(folder, "seeds", settings_tree(load_config(None, {**GIVEN, "data.dir": "other"})))


def test_what_changes_no_number_may_differ_in_every_run_of_it(folder):
    sources = {"mnli": load_config(None, {"task": "mnli"}), "rte": folder.parent / "runs" / "rte"}
    record = transfer_record(load_config(None, GIVEN), sources)
    (folder / "transfer.yaml").write_text(
        yaml.safe_dump({**record, "sources": {**record["sources"], "rte": "runs/rte"}})
    )
    faster = {"data.num_workers": 2, "data.eval_batch_size": 7}
    sources["mnli"] = load_config(None, {"task": "mnli", **faster})
    resume(folder, "transfer", transfer_record(load_config(None, {**GIVEN, **faster}), sources))
    sources["mnli"] = load_config(None, {"task": "mnli", "loop.max_steps": 7})
    with pytest.raises(ConfigError, match=r"sources\.mnli\.loop\.max_steps: .* asked for 7"):
        resume(folder, "transfer", transfer_record(load_config(None, GIVEN), sources))


def test_a_sweep_is_gone_on_with_under_another_spelling(folder):
    path = folder.parent / "s.yaml"
    path.write_text("task: cola\ndata: {dir: ./data}\nsweep: {space: {tuner.lr: [0.1, 0.2]}}\n")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(load_plan(path, {"model.backbone": "./t5"}).record))
    again = load_plan(path, {"model.backbone": str(folder.parent / "t5"), "data.num_workers": 1})
    resume(folder, "sweep", again.record)
    with pytest.raises(ConfigError, match=r"overrides\.seed: the run has None, asked for 1"):
        resume(folder, "sweep", load_plan(path, {"model.backbone": "./t5", "seed": 1}).record)
