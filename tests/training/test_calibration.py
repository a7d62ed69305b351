"""First values that depend on the training data: which rows, when, and that nothing else changes."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dept_vl.errors import ConfigError
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.open import open_run
from dept_vl.runs.session import Session
from dept_vl.settings.load import dump_config, load_config
from dept_vl.training.calibration import SquaredGradients, calibrate, check_calibration
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import train


def config_of(folder, run_dir, **own):
    return load_config(
        None,
        {
            "tuner.name": "lst",
            "tuner.reduction": 2,
            "tuner.fisher_rows": 8,
            "output_dir": str(run_dir),
            "model.backbone": str(folder),
            "data.max_source_length": 16,
            "data.max_target_length": 4,
            "data.batch_size": 8,
            "optim.warmup_steps": 0,
            "loop.max_steps": 2,
            "loop.save_every_steps": 1,
            "loop.eval_every_steps": 2,
            **{key.replace("__", "."): value for key, value in own.items()},
        },
    )


def opened(config, data_dir, session=None):
    return open_run(config, data_dir, ("train",), session)


def state_of(parts):
    return {key: value.clone() for key, value in parts.model.tuner.trainable_state().items()}


def differs(one, other):
    return {key for key in one if not torch.equal(one[key], other[key])}


def calibrated(config, data_dir, seed):
    parts = opened(config, data_dir)
    calibrate(parts.model, parts.datasets["train"], seed=seed, device=parts.device)
    return state_of(parts)


def test_the_start_is_a_function_of_the_seed(t5_folder, tiny_data, tmp_path):
    config = config_of(t5_folder, tmp_path)
    before = state_of(opened(config, tiny_data))
    one, same, other = (calibrated(config, tiny_data, seed) for seed in (1, 1, 2))
    assert not differs(one, same)
    assert differs(one, other)
    moved = differs(one, before)
    assert moved
    assert all(".blocks." in key or ".norm." in key for key in moved)


def test_it_is_the_sum_of_the_squares_of_single_rows(t5_folder, tiny_data, tmp_path):
    """Against autograd on transformers' own model, one row at a time, on the text alone."""
    parts = opened(config_of(t5_folder, tmp_path), tiny_data)
    backbone = parts.model.backbone
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    weight = dict(backbone.model.named_parameters())[name]
    ids = torch.tensor([[5, 9, 3, 1], [8, 2, 20, 1]])
    labels = torch.tensor([[4, 1], [9, 1]])
    with SquaredGradients(backbone, [name]) as found:
        for row in range(2):
            one = slice(row, row + 1)
            found.add(ids[one], torch.ones_like(ids[one]), labels[one])
    assert not weight.requires_grad
    assert weight.grad is None
    weight.requires_grad_(True)
    expected = torch.zeros_like(weight)
    for row in range(2):
        one = slice(row, row + 1)
        loss = backbone.model(input_ids=ids[one], labels=labels[one]).loss
        expected += torch.autograd.grad(loss, weight)[0] ** 2
    weight.requires_grad_(False)
    torch.testing.assert_close(found.sums[name], expected, rtol=1e-4, atol=1e-9)


def test_the_backbone_is_as_it_was_and_no_random_number_is_drawn(t5_folder, tiny_data, tmp_path):
    parts = opened(config_of(t5_folder, tmp_path), tiny_data)
    before = {key: value.clone() for key, value in parts.model.backbone.named_parameters()}
    parts.model.train()
    random = torch.random.get_rng_state()
    calibrate(parts.model, parts.datasets["train"], seed=0, device=parts.device)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert parts.model.backbone.training
    for key, parameter in parts.model.backbone.named_parameters():
        assert torch.equal(parameter, before[key])
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert not parameter._post_accumulate_grad_hooks


class KilledError(Exception):
    pass


class Kill(Callback):
    def on_step(self, config, step):
        if step == 1:
            raise KilledError


def test_a_resumed_run_has_its_values_already(t5_folder, tiny_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(t5_folder, tmp_path / "run")
    with pytest.raises(KilledError):
        train(config, tiny_data, callbacks=[Kill()])
    assert caplog.text.count("squared gradients of the frozen t5 on rows of the training split, 8 of them") == 1
    caplog.clear()
    train(config, tiny_data, resume=True)
    assert "squared gradients" not in caplog.text


def test_a_run_that_starts_from_another_has_its_values_already(t5_folder, tiny_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = config_of(t5_folder, tmp_path / "first")
    train(first, tiny_data)
    caplog.clear()
    second = config_of(t5_folder, tmp_path / "second", init__source=str(first.run_dir), tuner__lr=1e-12)
    train(second, tiny_data)
    assert "squared gradients" not in caplog.text
    assert list_states(second.run_dir / "checkpoints")


@pytest.mark.parametrize("init", ["magnitude", "random"])
def test_other_starts_need_no_data(t5_folder, tiny_data, tmp_path, caplog, init):
    caplog.set_level(logging.INFO)
    train(config_of(t5_folder, tmp_path / "run", tuner__init=init), tiny_data)
    assert "squared gradients" not in caplog.text


def test_a_split_smaller_than_asked_for_is_read_once(t5_folder, tiny_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    parts = opened(config_of(t5_folder, tmp_path, tuner__fisher_rows=10_000), tiny_data)
    calibrate(parts.model, parts.datasets["train"], seed=0, device=parts.device)
    assert f"{len(parts.datasets['train'].indices)} of them" in caplog.text


def test_a_backbone_in_shards_is_refused(t5_folder, tiny_data, tmp_path):
    session = Session()
    parts = opened(config_of(t5_folder, tmp_path), tiny_data, session)
    parts.model.backbone.is_sharded = True
    with pytest.raises(ConfigError, match=r"'lst' needs gradients of the whole backbone.*tuner.init=magnitude"):
        check_calibration(parts.model)


def final_of_two_processes(config, data_dir, **environment):
    """The tensors that a launch of two processes ends with."""
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump_config(config))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
        "-m", "dept_vl", "train", "--config", str(path), "--data-dir", str(data_dir),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(list_states(config.run_dir / "checkpoints")[-1] / "trainable.safetensors")


@pytest.mark.distributed
def test_beside_a_backbone_in_shards_the_network_trains_to_the_same_weights(t5_folder, tiny_data, tmp_path):
    own = {"tuner__init": "magnitude", "loop__save_every_steps": 2}
    whole = final_of_two_processes(config_of(t5_folder, tmp_path / "whole", **own), tiny_data)
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    sharded = final_of_two_processes(config_of(t5_folder, tmp_path / "sharded", **own), tiny_data, **fsdp)
    assert not differs(whole, sharded)
