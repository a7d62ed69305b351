"""A run that builds on the prompts of other runs: resumed, scored and published without them."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.adapter.files import WEIGHTS_FILE, read_adapter_config
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import read_run_config
from dept_vl.runs.published import public_config
from dept_vl.settings.load import load_config
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import train
from tests.tuners.adapted import make, settings

M = 4


class KilledError(Exception):
    pass


class Kill(Callback):
    def on_step(self, config, step):
        if step == 3:
            raise KilledError


def save_sources(folder, root, *, moved=1.0):
    """Two trained prompts under a folder, as relative or absolute names may find them."""
    for seed, name in enumerate(("mnli", "qqp")):
        model = make(folder, settings("prompt-tuning", num_virtual_tokens=M), feature_dim=None, seed=seed, moved=moved)
        model.save_pretrained(root / name)


OWN = {
    "attempt": {"tuner.sources": ["runs/mnli", "runs/qqp"], "tuner.attention_width": 5, "tuner.temperature": 2.0},
    "mpt": {"tuner.teachers": ["runs/qqp"]},
    "attempt+bitfit": {"tuner.parts.attempt.sources": ["runs/mnli"], "tuner.parts.attempt.num_virtual_tokens": M},
}


def config_of(name, folder, run_dir, **more):
    length = {} if "+" in name else {"tuner.num_virtual_tokens": M}
    return load_config(
        None,
        {
            "tuner.name": name, **length, **OWN[name], "task": "cola", "output_dir": str(run_dir),
            "model.backbone": str(folder), "data.max_source_length": 16, "data.max_target_length": 4,
            "data.batch_size": 8, "loop.max_steps": 4, "loop.eval_every_steps": 2, "loop.save_every_steps": 1, **more,
        },
    )  # fmt: skip


def frozen_file(state):
    """The file of a checkpoint that holds what is neither trained nor a moment."""
    (path,) = (path for path in state.glob("*.safetensors") if path.stem not in ("trainable", "optimizer"))
    return path


@pytest.mark.parametrize("name", OWN)
def test_a_killed_run_goes_on_to_the_same_bits_when_the_others_are_gone(
    name, t5_folder, label_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    unbroken = config_of(name, t5_folder, tmp_path / "unbroken")
    train(unbroken, label_data)
    config = config_of(name, t5_folder, tmp_path / "run")
    with pytest.raises(KilledError):
        train(config, label_data, callbacks=[Kill()])
    shutil.rmtree(tmp_path / "runs")
    train(config, label_data, resume=True)
    assert (config.run_dir / WEIGHTS_FILE).read_bytes() == (unbroken.run_dir / WEIGHTS_FILE).read_bytes()
    ours, theirs = (list_states(run.run_dir / "checkpoints")[-1] for run in (config, unbroken))
    assert frozen_file(ours).read_bytes() == frozen_file(theirs).read_bytes()
    assert (ours / "trainable.safetensors").read_bytes() == (theirs / "trainable.safetensors").read_bytes()
    assert evaluate_run(config, label_data, config.run_dir).metrics["invalid"] == 0
    assert str(tmp_path) not in (config.run_dir / "adapter_config.json").read_text().replace(str(t5_folder), "")


def test_a_killed_run_does_not_see_that_another_was_trained_on(t5_folder, label_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    unbroken, config = (config_of("attempt", t5_folder, tmp_path / name) for name in ("unbroken", "run"))
    train(unbroken, label_data)
    with pytest.raises(KilledError):
        train(config, label_data, callbacks=[Kill()])
    save_sources(t5_folder, tmp_path / "runs", moved=0.1)
    train(config, label_data, resume=True)
    assert (config.run_dir / WEIGHTS_FILE).read_bytes() == (unbroken.run_dir / WEIGHTS_FILE).read_bytes()


def test_a_checkpoint_without_the_frozen_tensors_is_refused(t5_folder, label_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    config = config_of("attempt", t5_folder, tmp_path / "run")
    with pytest.raises(KilledError):
        train(config, label_data, callbacks=[Kill()])
    frozen_file(list_states(config.run_dir / "checkpoints")[-1]).unlink()
    with pytest.raises(CheckpointError, match=r"step-00000003[:/]"):
        train(config, label_data, resume=True)


def test_paths_are_recorded_from_the_root_on_and_published_as_names(t5_folder, label_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    config = config_of("attempt", t5_folder, tmp_path / "run", **{"loop.max_steps": 2})
    train(config, label_data)
    recorded = read_run_config(config.run_dir)
    assert recorded.tuner.sources == (str(tmp_path / "runs/mnli"), str(tmp_path / "runs/qqp"))
    assert read_adapter_config(config.run_dir).tuner.sources == ("mnli", "qqp")
    public = public_config(recorded, {"model.backbone": "google-t5/t5-small", "data.dir": None})
    assert public.tuner == replace(config.tuner, sources=("mnli", "qqp"))
    stack = {"tuner.name": "attempt+lora", "tuner.parts.attempt.sources": ["/home/me/mnli", "me/qqp"]}
    public = public_config(load_config(None, stack), {"model.backbone": "google-t5/t5-small", "data.dir": None})
    assert public.tuner.parts["attempt"].sources == ("mnli", "me/qqp")
    with pytest.raises(ConfigError, match=r"(?s)cannot resume .* tuner.sources: the run has"):
        train(replace(config, tuner=replace(config.tuner, sources=("runs/qqp", "runs/mnli"))), label_data, resume=True)


def test_with_teachers_the_loss_of_training_is_larger_and_that_of_validation_the_same(
    t5_folder, label_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    found = {}
    for weight in (0.0, 0.9):
        seen = {}

        class Watch(Callback):
            def on_log(self, config, step, values, seen=seen):
                seen.update(values)

        more = {"tuner.teacher_weight": weight, "loop.max_steps": 1, "loop.log_every_steps": 1, "tuner.lr": 1e-12}
        config = config_of("mpt", t5_folder, tmp_path / str(weight), **more, **{"tuner.task_lr": 1e-12})
        train(config, label_data, callbacks=[Watch()])
        found[weight] = seen
    assert found[0.9]["loss"] > found[0.0]["loss"] + 0.01
    assert found[0.9]["val/loss"] == pytest.approx(found[0.0]["val/loss"], abs=1e-6)


def test_the_second_stage_of_mpt_and_an_attention_are_started_from_runs(t5_folder, label_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    for name, note in (("mpt", None), ("attempt", "the attention is taken")):
        short = {"loop.max_steps": 1, "loop.eval_every_steps": 1}
        first = config_of(name, t5_folder, tmp_path / f"{name}-1", **short)
        train(first, label_data)
        again = {"init.from": str(first.run_dir), "tuner.lr": 1e-12, "optim.weight_decay": 0.0}
        rates = {"mpt": {"tuner.task_lr": 1e-12, "tuner.teachers": []}, "attempt": {"tuner.attention_lr": 1e-12}}
        second = config_of(name, t5_folder, tmp_path / f"{name}-2", **short, **again, **rates[name])
        train(second, label_data)
        ours, theirs = (load_file(config.run_dir / WEIGHTS_FILE) for config in (second, first))
        taken = [key for key in theirs if name == "mpt" or "attention" in key]
        assert taken
        assert all((ours[key] - theirs[key]).abs().max() < 1e-6 for key in taken)
        notes = json.loads((second.run_dir / "run.json").read_text())["init"]["notes"]
        assert notes == [] if note is None else notes[0].startswith(note)


def test_as_many_teachers_as_tasks_are_needed(t5_folder, label_data, tmp_path):
    config = config_of("mpt", t5_folder, tmp_path / "run", **{"tuner.teachers": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"tuner.teachers: names 2 runs for 1 tasks; name one trained on each"):
        train(config, label_data)


def test_teachers_are_refused_for_a_task_with_images(t5_folder, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sources(t5_folder, tmp_path / "runs")
    config = config_of("mpt", t5_folder, tmp_path / "run", task="vqa")
    with pytest.raises(ConfigError, match=r"tuner.teachers: a teacher's prompt is taken without the visual projection"):
        train(config, tiny_data)


def test_teachers_are_refused_in_a_stack(t5_folder, label_data, tmp_path):
    own = {"tuner.parts.mpt.teachers": ["a"], "tuner.parts.attempt.sources": []}
    config = config_of("attempt+bitfit", t5_folder, tmp_path / "run", **{"tuner.name": "attempt+bitfit+mpt"}, **own)
    with pytest.raises(ConfigError, match=r"tuner.parts.mpt: learns from teachers, who answer without the other parts"):
        train(config, label_data)
