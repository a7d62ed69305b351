from pathlib import Path

import pytest

from dept_vl.errors import ConfigError
from dept_vl.experiments.space import Range, load_plan

PAPER = Path(__file__).parents[2] / "configs" / "sweeps" / "paper.yaml"


def plan_of(tmp_path, text, **overrides):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return load_plan(path, overrides)


def test_the_papers_grid_has_48_points_and_the_parameters_of_a_100_token_prompt():
    plan = load_plan(PAPER, {})
    assert plan.num_trials == 3 * 4 * 4
    for point in plan.points:
        assert plan.config(point).tuner.budget(768, 256).is_exact
    assert plan.points[0] == {"tuner.lr": 0.3, "tuner.lowrank_lr": 1e-4, "tuner.num_virtual_tokens": 20}


def test_numbers_without_a_dot_in_the_mantissa_are_numbers(tmp_path):
    plan = plan_of(tmp_path, "sweep: {space: {tuner.lr: {low: 1e-3, high: 1, log: true}}, sampler: tpe, trials: 3}")
    assert plan.sweep.space["tuner.lr"] == Range(low=1e-3, high=1, log=True)


def test_overrides_go_to_the_sweep_or_to_its_runs(tmp_path):
    plan = plan_of(
        tmp_path, "seed: 4\nsweep: {space: {tuner.lr: [0.1, 0.2]}}", **{"sweep.trials": 1, "data.batch_size": 2}
    )
    assert plan.num_trials == 1
    config = plan.config({"tuner.lr": 0.2})
    assert (config.seed, config.data.batch_size, config.tuner.lr) == (4, 2, 0.2)


def test_a_stack_s_parts_can_be_varied(tmp_path):
    text = "tuner: {name: dept+lora}\nsweep: {space: {tuner.parts.lora.rank: [2, 4]}}"
    plan = plan_of(tmp_path, text)
    assert [plan.config(point).tuner.parts["lora"].rank for point in plan.points] == [2, 4]
    with pytest.raises(ConfigError, match=r"tuner\.parts\.lora\.rnk: unknown setting"):
        plan_of(tmp_path, text.replace("rank", "rnk"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "has no section 'sweep'"),
        ("sweep: {space: {seed: [1]}, trails: 3}", r"sweep\.trails: unknown sweep key; did you mean 'trials'"),
        (
            "sweep: {space: {optim.projecton_lr: [1]}}",
            r"optim\.projecton_lr: not a setting; did you mean 'optim\.projection_lr'",
        ),
        ("sweep: {space: {optim: [1]}}", "optim: not a setting"),
        ("sweep: {space: {task: [vqa, coco]}}", "task: cannot be varied"),
        ("sweep: {space: {}}", "names no setting to vary"),
        ("sweep: {space: {tuner.lr: [0.1, -1]}}", r"tuner\.lr: .*greater than 0"),
        ("sweep: {space: {tuner.lr: [0.1, 0.1]}}", "expected different values"),
        ("sweep: {space: {tuner.lr: {low: 0.1, high: 1}}}", "a grid needs a list"),
        ("sweep: {space: {tuner.lr: {low: 1, high: 0.1}}, sampler: tpe, trials: 2}", "expected low < high"),
        ("sweep: {space: {tuner.lr: {lo: 1, high: 3}}, sampler: tpe, trials: 2}", "sweep.space.tuner.lr"),
        ("sweep: {space: {tuner.lr: [0.1]}, sampler: random}", "needs the number of runs"),
        ("sweep: {space: {tuner.lr: [0.1]}, sampler: bayes}", "sweep.sampler"),
        ("tuner: {name: prompt-tuning}\nsweep: {space: {tuner.rank: [3]}}", r"tuner\.rank: unknown setting"),
    ],
)
def test_bad_sweep_files_say_what_is_wrong(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, text)


def test_a_setting_varied_and_given_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="varied by the sweep and given on the command line"):
        plan_of(tmp_path, "sweep: {space: {tuner.lr: [0.1, 0.2]}}", **{"tuner.lr": 0.3})
