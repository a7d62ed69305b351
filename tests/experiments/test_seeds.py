import json
import statistics
from dataclasses import replace

import pytest
import yaml

from dept_vl.errors import ConfigError
from dept_vl.experiments.scores import spread
from dept_vl.experiments.seeds import train_seeds
from dept_vl.reports.text import describe_seeds
from dept_vl.settings.load import load_config
from tests.experiments.conftest import written_at


@pytest.fixture
def config(base, tmp_path):
    return load_config(None, {**base, "output_dir": str(tmp_path / "seeds")})


def test_seeds_are_runs_of_their_own_with_mean_and_sample_deviation(config, tiny_data):
    result = train_seeds(config, tiny_data, [0, 1, 2])
    written = json.loads((config.run_dir / "seeds.json").read_text())
    values = [
        json.loads((config.run_dir / f"seed-{seed}" / "results-test.json").read_text())["metrics"]["vqa_accuracy"]
        for seed in (0, 1, 2)
    ]
    accuracy = written["metrics"]["vqa_accuracy"]
    assert accuracy["values"] == values
    assert accuracy["mean"] == pytest.approx(sum(values) / 3)
    assert accuracy["std"] == pytest.approx(statistics.stdev(values))
    assert "n - 1" in written["std"]
    assert written["seeds"] == [0, 1, 2]
    assert "vqa_accuracy" in describe_seeds(result)


def test_a_single_seed_has_no_deviation():
    assert spread([0.5]).std is None
    assert spread([1.0, 3.0]).std == pytest.approx(2**0.5)


def test_finished_seeds_are_not_trained_again(config, tiny_data):
    train_seeds(config, tiny_data, [0])
    before = written_at(config.run_dir / "seed-0")
    train_seeds(config, tiny_data, [0, 1], resume=True)
    assert written_at(config.run_dir / "seed-0") == before
    assert written_at(config.run_dir / "seed-1")


def test_scores_of_other_settings_are_not_taken_for_a_seeds_own(config, tiny_data):
    own = train_seeds(config, tiny_data, [0]).test
    path = config.run_dir / "seed-0" / "results-test.json"
    others = {**json.loads(path.read_text()), "settings_sha256": "0" * 64, "metrics": {"vqa_accuracy": -1.0}}
    path.write_text(json.dumps(others))
    assert train_seeds(config, tiny_data, [0], resume=True).test == own
    (moved,) = path.parent.glob("results-test-*.json")
    assert json.loads(moved.read_text()) == others


def test_a_folder_of_seeds_is_not_taken_without_being_asked_to(config, tiny_data):
    train_seeds(config, tiny_data, [0])
    with pytest.raises(ConfigError, match="is not empty; add --resume to go on with the seeds"):
        train_seeds(config, tiny_data, [0])
    other = load_config(None, {"output_dir": str(config.run_dir), "data.batch_size": 4})
    with pytest.raises(ConfigError, match=r"data\.batch_size: the run has 8, asked for 4"):
        train_seeds(other, tiny_data, [0], resume=True)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_are_different_numbers(config, tiny_data, seeds):
    with pytest.raises(ConfigError, match="--seeds: expected different numbers from 0 on"):
        train_seeds(config, tiny_data, seeds)


def test_settings_that_came_later_have_their_defaults_in_an_earlier_record(config, tiny_data):
    """Whatever a later version adds, the experiment was made with what is its default now."""
    train_seeds(config, tiny_data, [0])
    marker = config.run_dir / "seeds.yaml"
    record = yaml.safe_load(marker.read_text())
    for group, name in (("optim", "warmup"), ("data", "loss_mean"), ("decode", "max_new_tokens")):
        del record[group][name]
    marker.write_text(yaml.safe_dump(record))
    train_seeds(config, tiny_data, [0], resume=True)
    other = replace(config, optim=replace(config.optim, warmup="transformers"))
    with pytest.raises(ConfigError, match=r"optim\.warmup: the run has 'above-zero', asked for 'transformers'"):
        train_seeds(other, tiny_data, [0], resume=True)
