"""A run that is stopped, meets a bad step, or finds its folder in use loses nothing."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from dept_vl.errors import ConfigError, DivergenceError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.settings.load import load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system import signals
from dept_vl.system.locks import folder_lock, hold
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import Trainer, train


@pytest.fixture
def settings(t5_folder, tmp_path) -> dict[str, object]:
    return {
        "output_dir": str(tmp_path / "run"), "model.backbone": str(t5_folder), "data.max_source_length": 16,
        "data.max_target_length": 4, "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8,
        "loop.max_steps": 6, "loop.eval_every_steps": 3, "loop.save_every_steps": 2, "loop.log_every_steps": 1,
    }  # fmt: skip


@pytest.fixture
def config(settings) -> TrainConfig:
    return load_config(None, settings)


def elsewhere(config: TrainConfig, tmp_path, name: str = "other", **loop) -> TrainConfig:
    return replace(config, output_dir=str(tmp_path / name), loop=replace(config.loop, **loop))


def outcome(config: TrainConfig):
    """Returns what must be equal at the end: adapter bytes, last checkpoint, metrics without speed."""
    state = list_states(config.run_dir / "checkpoints")[-1]
    lines = map(json.loads, (config.run_dir / "metrics.jsonl").read_text().splitlines())
    metrics = [{k: v for k, v in line.items() if k not in ("samples_per_s", "data_wait_share")} for line in lines]
    files = (
        config.run_dir / "adapter_model.safetensors",
        state / "trainable.safetensors",
        state / "optimizer.safetensors",
    )
    return [path.read_bytes() for path in files], metrics


def before_call(monkeypatch, owner, name: str, number: int, act) -> None:
    """Does something before the `number`-th call of a method."""
    original, count = getattr(owner, name), [0]

    def counted(self, *arguments, **options):
        count[0] += 1
        if count[0] == number:
            act()
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, name, counted)


def poison(monkeypatch, factor: float, *steps: int) -> None:
    """Multiplies the loss of some steps (from 1) before its backward pass."""
    backward, count = Accelerator.backward, [0]

    def poisoned(self, loss, **options):
        count[0] += 1
        return backward(self, loss * (factor if count[0] in steps else 1.0), **options)

    monkeypatch.setattr(Accelerator, "backward", poisoned)


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("owner", "name", "number", "stopped_at"), [
    (torch.optim.AdamW, "step", 4, "step-00000005"), (AdaptedModel, "answering", 1, "step-00000003"),
    (AdaptedModel, "answering", 2, "step-00000006"),
], ids=["in a step", "in an evaluation", "in the last evaluation"])  # fmt: skip
def test_a_stopped_run_saves_and_goes_on_to_the_same_bits(
    config, tiny_data, tmp_path, monkeypatch, owner, name, number, stopped_at
):
    unbroken = elsewhere(config, tmp_path)
    train(unbroken, tiny_data)
    before_call(monkeypatch, owner, name, number, ask_to_stop)
    with pytest.raises(signals.StoppedError) as stopped, signals.listen():
        train(config, tiny_data)
    monkeypatch.undo()
    assert stopped.value.is_resumable
    states = [path.name for path in list_states(config.run_dir / "checkpoints")]
    assert states[-1] <= stopped_at
    assert f"after step {int(states[-1][5:])}" in stopped.value.done
    train(config, tiny_data, resume=True)
    assert outcome(config) == outcome(unbroken)


def test_a_library_caller_s_ctrl_c_is_an_ordinary_interrupt(config, tiny_data, monkeypatch):
    before_call(monkeypatch, torch.optim.AdamW, "step", 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with SIGINT ignored
    try:
        with pytest.raises(KeyboardInterrupt) as interrupt:
            train(config, tiny_data)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert not isinstance(interrupt.value, signals.StoppedError)
    assert folder_lock(config.run_dir, "").owner() is None


def test_a_second_run_on_the_folder_is_refused_and_the_first_untouched(config, tiny_data):
    train(config, tiny_data)
    before = outcome(config)
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with hold(folder_lock(config.run_dir, "")), pytest.raises(ConfigError, match=r"run: in use by process \d+"):
            train(config, tiny_data, **options)
    assert outcome(config) == before


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e30])
def test_a_bad_step_stops_the_run_named_with_the_last_good_checkpoint_kept(config, tiny_data, monkeypatch, factor):
    poison(monkeypatch, factor, 5)
    named = r"step 5: loss .*not finite or exploded in soft_prompt, .*examples \[1\d\d\d, .*step-00000004"
    with pytest.raises(DivergenceError, match=named):
        train(config, tiny_data)
    assert [state.name for state in list_states(config.run_dir / "checkpoints")] == ["step-00000002", "step-00000004"]


def test_a_run_that_a_bad_step_stopped_goes_on_by_skipping_it(config, tiny_data, tmp_path, monkeypatch):
    with monkeypatch.context() as first:
        poison(first, float("nan"), 5)
        with pytest.raises(DivergenceError):
            train(config, tiny_data)
    skipping = replace(config, loop=replace(config.loop, on_nan="skip"))
    with monkeypatch.context() as second:
        poison(second, float("nan"), 1)
        train(skipping, tiny_data, resume=True)
    unbroken = elsewhere(skipping, tmp_path)
    poison(monkeypatch, float("nan"), 5)
    result = train(unbroken, tiny_data)
    assert (result.progress.skipped_steps, result.progress.skipped_in_a_row) == (1, 0)
    assert outcome(skipping)[0] == outcome(unbroken)[0]
    assert load_config(config.run_dir / "config.yaml") == skipping


def test_a_skipped_step_changes_neither_weights_nor_moments_and_is_counted(config, tiny_data, tmp_path, monkeypatch):
    skipping = elsewhere(config, tmp_path, on_nan="skip", save_every_steps=1, keep_checkpoints=6)
    poison(monkeypatch, float("inf"), 3)
    train(skipping, tiny_data)
    before, after = list_states(skipping.run_dir / "checkpoints")[1:3]
    for name in ("trainable", "optimizer"):
        assert (before / f"{name}.safetensors").read_bytes() == (after / f"{name}.safetensors").read_bytes()
    lines = [json.loads(line) for line in (skipping.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in lines if "samples_per_s" in line] == [0, 0, 1, 1, 1, 1]
    assert ["loss" in line for line in lines if line["step"] == 3] == [False, False]
    assert json.loads((skipping.run_dir / "training.json").read_text())["skipped_steps"] == 1


def test_steps_looked_at_late_as_on_a_gpu_are_refused_before_a_save(config, tiny_data, tmp_path, monkeypatch):
    config = elsewhere(config, tmp_path, log_every_steps=100)
    trainer = Trainer(config, tiny_data)
    trainer.checks_each_step = False
    poison(monkeypatch, float("nan"), 3)
    with pytest.raises(DivergenceError, match=r"step 3: .* in soft_prompt"):
        trainer.fit()
    (state,) = list_states(config.run_dir / "checkpoints")
    assert state.name == "step-00000002"
    assert all(tensor.isfinite().all() for tensor in load_file(state / "trainable.safetensors").values())
