import csv
import json
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from PIL import Image

from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError, DivergenceError
from dept_vl.evaluators import EVALUATORS
from dept_vl.evaluators.base import PERCENT, Evaluator
from dept_vl.experiments.space import SweepPlan, load_plan
from dept_vl.experiments.sweep import run_sweep
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.reports.text import describe_sweep
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.session import Session

GRID = {"space": {"tuner.lr": [0.05, 0.3], "tuner.num_virtual_tokens": [4, 8]}}


def write_plan(path: Path, base, sweep) -> Path:
    tree: dict = {"sweep": sweep}
    for key, value in base.items():
        group = tree
        *parents, last = key.split(".")
        for parent in parents:
            group = group.setdefault(parent, {})
        group[last] = value
    path.write_text(yaml.safe_dump(tree))
    return path


def plan_of(folder: Path, base, sweep, **overrides) -> SweepPlan:
    path = write_plan(folder / "sweep.yaml", base, sweep)
    return load_plan(path, {"output_dir": str(folder / "sweep"), **overrides})


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid_runs_every_point_and_scores_the_best_on_validation_once(base, tiny_data, tmp_path):
    result = run_sweep(plan_of(tmp_path, base, GRID), tiny_data)
    folder = tmp_path / "sweep"
    rows = table(folder)
    assert [(row["tuner.lr"], row["tuner.num_virtual_tokens"]) for row in rows] == [
        ("0.05", "4"), ("0.05", "8"), ("0.3", "4"), ("0.3", "8"),
    ]  # fmt: skip
    values = [float(row["val vqa_accuracy"]) for row in rows]
    summary = json.loads((folder / "sweep.json").read_text())
    assert summary["best"]["val vqa_accuracy"] == max(values)
    assert Path(summary["best"]["run"]).name == f"trial-{values.index(max(values)):04d}"
    assert [path.parent.name for path in folder.glob("*/results-test.json")] == [Path(summary["best"]["run"]).name]
    with Image.open(folder / "trials.png") as plot:
        assert plot.width > 300
    assert "best on val" in describe_sweep(result)


def test_the_lowest_loss_is_the_best_where_runs_are_picked_by_it(base, tiny_data, tmp_path):
    result = run_sweep(plan_of(tmp_path, {**base, "loop.best_metric": "loss"}, GRID), tiny_data)
    values = [float(row["val loss"]) for row in table(tmp_path / "sweep")]
    best = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["best"]
    assert best["val loss"] == min(values) < max(values)
    assert Path(best["run"]).name == f"trial-{values.index(min(values)):04d}" == result.best.run_dir.name
    shown = [line.split()[0] for line in describe_sweep(result).splitlines()[2:6]]
    assert shown == [str(values.index(value)) for value in sorted(values)]


def test_a_trial_of_a_higher_loss_is_pruned(base, tiny_data, tmp_path):
    """Five learn, and the last stays as it starts."""
    space = {"space": {"tuner.lr": [0.1, 0.2, 0.3, 0.4, 0.5, 1e-9]}, "pruner": "median"}
    settings = {**base, "loop.best_metric": "loss", "loop.eval_every_steps": 1, "optim.projection_lr": 1e-9}
    run_sweep(plan_of(tmp_path, {**settings, "tuner.lowrank_lr": 1e-9}, space), tiny_data)
    assert table(tmp_path / "sweep")[-1]["state"] == "pruned"


def start_sweep(fresh_process, config: Path, folder: Path):
    return fresh_process.start(main, ["sweep", "--config", str(config), "--output-dir", str(folder)])


def test_a_killed_sweep_goes_on_to_what_an_unbroken_one_finds(base, tiny_data, tmp_path, fresh_process):
    base = {**base, "loop.max_steps": 30, "loop.eval_every_steps": 10, "loop.save_every_steps": 10}
    (tmp_path / "unbroken").mkdir()
    (tmp_path / "killed").mkdir()
    grid = {"space": {"tuner.lr": [0.05, 0.3, 1.0]}}
    unbroken = run_sweep(plan_of(tmp_path / "unbroken", base, grid), tiny_data)
    plan = plan_of(tmp_path / "killed", base, grid)
    child = start_sweep(fresh_process, tmp_path / "killed" / "sweep.yaml", plan.folder)
    midway = plan.folder / "trial-0001" / "checkpoints" / "step-00000010"
    deadline = time.monotonic() + 120
    while not midway.exists() and time.monotonic() < deadline and child.is_alive():
        time.sleep(0.005)
    child.kill()
    child.join()
    assert not (plan.folder / "trials.csv").exists()
    finished = (plan.folder / "trial-0000" / "training.json").stat().st_mtime_ns
    resumed = run_sweep(plan, tiny_data, resume=True)
    assert table(plan.folder) == table(unbroken.folder)
    assert resumed.best.run_dir.name == unbroken.best.run_dir.name
    assert (resumed.best.val, resumed.best.test) == (unbroken.best.val, unbroken.best.test)
    assert (plan.folder / "trial-0000" / "training.json").stat().st_mtime_ns == finished
    for trial in sorted(unbroken.folder.glob("trial-*")):
        ours = (plan.folder / trial.name / WEIGHTS_FILE).read_bytes()
        assert ours == (trial / WEIGHTS_FILE).read_bytes(), trial.name


class KilledError(Exception):
    pass


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_resumed_sampler_draws_what_an_unbroken_one_draws(base, tiny_data, tmp_path, sampler):
    sweep = {
        "space": {"tuner.lr": {"low": 0.01, "high": 1.0, "log": True}, "data.batch_size": {"low": 4, "high": 8}},
        "sampler": sampler,
        "trials": 3,
    }
    base = {**base, "loop.max_steps": 2}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    run_sweep(plan_of(tmp_path / "a", base, sweep), tiny_data)
    plan = plan_of(tmp_path / "b", base, sweep)

    class KillTheSecond(Callback):
        def on_step(self, config, step):
            if config.run_dir.name == "trial-0001":
                raise KilledError

    with pytest.raises(KilledError):
        run_sweep(plan, tiny_data, session=Session([KillTheSecond()]))
    run_sweep(plan, tiny_data, resume=True)
    assert table(plan.folder) == table(tmp_path / "a" / "sweep")


@pytest.mark.distributed
def test_two_processes_share_the_trials(base, tiny_data, tmp_path, fresh_process):
    base = {**base, "loop.max_steps": 30}
    plan = plan_of(tmp_path, base, GRID)
    child = start_sweep(fresh_process, tmp_path / "sweep.yaml", plan.folder)
    while not (plan.folder / "trial-0000").exists() and child.is_alive():
        time.sleep(0.01)
    run_sweep(plan, tiny_data, resume=True)
    child.join(timeout=120)
    assert child.exitcode == 0, fresh_process.printed()
    assert [row["state"] for row in table(plan.folder)] == ["complete"] * 4
    assert len(list(plan.folder.glob("*/results-test.json"))) == 1


def test_a_pruned_trial_ends_early_and_is_not_chosen(base, tiny_data, tmp_path, monkeypatch):
    values = iter([50.0] * 5 * 4 + [10.0] * 9)  # five trials of four evaluations, then a worse one
    fake = Evaluator(lambda _: {"vqa_accuracy": next(values)}, {"vqa_accuracy": PERCENT})
    monkeypatch.setitem(EVALUATORS, "vqa-accuracy", fake)
    space = {"space": {"tuner.lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}, "pruner": "median"}
    plan = plan_of(tmp_path, {**base, "loop.eval_every_steps": 1}, space)
    run_sweep(plan, tiny_data)
    assert [row["state"] for row in table(plan.folder)] == ["complete"] * 5 + ["pruned"]
    assert not (plan.folder / "trial-0005" / "training.json").exists()
    assert json.loads((plan.folder / "sweep.json").read_text())["best"]["params"] == {"tuner.lr": 0.1}


def test_a_diverged_trial_is_recorded_and_the_others_go_on(base, tiny_data, tmp_path):
    class Diverge(Callback):
        def on_step(self, config, step):
            if config.tuner.lr == 0.05:
                raise DivergenceError("the loss became nan")

    plan = plan_of(tmp_path, base, {"space": {"tuner.lr": [0.05, 0.3]}})
    assert run_sweep(plan, tiny_data, session=Session([Diverge()])).best.config.tuner.lr == 0.3
    assert [row["state"] for row in table(plan.folder)] == ["fail", "complete"]


def test_another_sweep_is_not_mixed_into_the_folder(base, tiny_data, tmp_path):
    plan = plan_of(tmp_path, base, {"space": {"tuner.lr": [0.3]}})
    run_sweep(plan, tiny_data)
    with pytest.raises(ConfigError, match="is not empty; add --resume to go on with the sweep"):
        run_sweep(plan, tiny_data)
    with pytest.raises(ConfigError, match=r"sweep\.space\.tuner\.lr: the run has \[0\.3\], asked for \[0\.2\]"):
        run_sweep(plan_of(tmp_path, base, {"space": {"tuner.lr": [0.2]}}), tiny_data, resume=True)


def test_a_line_of_the_journal_that_a_full_disk_cut_short_is_dropped(base, tiny_data, tmp_path, caplog):
    plan = plan_of(tmp_path, base, GRID)
    run_sweep(plan, tiny_data)
    before = table(plan.folder)
    with open(plan.folder / "optuna.journal", "ab") as journal:
        journal.write(b'{"op_code": 4, "wor')
    run_sweep(plan, tiny_data, resume=True)
    assert "optuna.journal: dropped a line that was cut short" in caplog.text
    assert table(plan.folder) == before


def test_a_sweep_at_work_is_not_replaced(base, tiny_data, tmp_path):
    plan = plan_of(tmp_path, base, GRID)
    run_sweep(plan, tiny_data)
    taken = FileLock(plan.folder / ".trial-0000.lock")
    with taken, pytest.raises(ConfigError, match=r"in use by another process \(\.trial-0000\.lock is locked\)"):
        run_sweep(plan, tiny_data, overwrite=True)
    assert table(plan.folder)


def test_a_damaged_journal_is_one_message(base, tiny_data, tmp_path):
    plan = plan_of(tmp_path, base, GRID)
    run_sweep(plan, tiny_data)
    (plan.folder / "optuna.journal").write_text("not json\nat all\n")
    with pytest.raises(CheckpointError, match=r"optuna\.journal: damaged, or replaced while the sweep ran"):
        run_sweep(plan, tiny_data, resume=True)
