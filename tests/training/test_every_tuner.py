"""Every registered tuner through the whole path: trained, killed, resumed, scored, loaded; and in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.models.build import load_model
from dept_vl.runs.callbacks import Callback
from dept_vl.settings.load import dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import train
from tests.models.language.causal_folders import save_tiny_gpt2, save_tiny_llama
from tests.tuners.adapted import LIKE_LLAMA, registered, trained_sources

METHODS = registered()
TUNERS = [*(method.name for method in METHODS if not method.needs_tasks), "dept+lora"]
MIX_TUNERS = [*(method.name for method in METHODS if method.needs_tasks), "dept", "lora", "fine-tuning"]
"""Methods that are trained on several tasks: those made for it, and some that do not look at the task."""
SIZES = {
    "p-tuning": {"tuner.num_virtual_tokens": 4, "tuner.hidden_size": 10},
    "adept": {"tuner.num_virtual_tokens": 4, "tuner.rank": 3},
    "ulpt": {"tuner.num_virtual_tokens": 4},
    "attempt": {"tuner.num_virtual_tokens": 4, "tuner.attention_width": 5},
    "mpt": {"tuner.num_virtual_tokens": 4},
    "dept": {"tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4},
    "prompt-tuning": {"tuner.num_virtual_tokens": 4},
    "adapter": {"tuner.bottleneck": 4},
    "hyperformer": {"tuner.bottleneck": 4},
    "hyperdecoder": {"tuner.encoder_bottleneck": 4, "tuner.decoder_bottleneck": 4},
    "adapterdrop": {"tuner.bottleneck": 4, "tuner.layers": [1]},
    "dept+lora": {"tuner.parts.dept.budget_tokens": 20, "tuner.parts.dept.num_virtual_tokens": 4},
}
"""Where the defaults are larger than the tiny models."""
WITH_DROPOUT = {method.name for method in METHODS if hasattr(method, "dropout")}
WITH_SOURCES = {method.name for method in METHODS if hasattr(method, "sources")}


def config_of(name: str, folder: Path, run_dir: Path, **settings) -> TrainConfig:
    sizes = SIZES.get(name, {})
    if name in WITH_SOURCES:
        sizes = {**sizes, "tuner.sources": list(trained_sources(folder, sizes["tuner.num_virtual_tokens"]))}
    return load_config(
        None,
        {
            "tuner.name": name,
            **sizes,
            "output_dir": str(run_dir),
            "model.backbone": str(folder),
            "data.max_source_length": 16,
            "data.max_target_length": 4,
            "data.batch_size": 8,
            "loop.max_steps": 4,
            "loop.eval_every_steps": 2,
            "loop.save_every_steps": 1,
            **{key.replace("__", "."): value for key, value in settings.items()},
        },
    )


def final(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(list_states(run_dir / "checkpoints")[-1] / "trainable.safetensors")


class KilledError(Exception):
    pass


class Kill(Callback):
    def on_step(self, config, step):
        if step == 3:
            raise KilledError


@pytest.mark.parametrize("name", TUNERS)
def test_it_trains_resumes_and_is_scored_on_images(name, t5_folder, tiny_data, tmp_path):
    unbroken = config_of(name, t5_folder, tmp_path / "unbroken")
    result = train(unbroken, tiny_data)
    config = config_of(name, t5_folder, tmp_path / "run")
    with pytest.raises(KilledError):
        train(config, tiny_data, callbacks=[Kill()])
    train(config, tiny_data, resume=True)
    ours, theirs = final(config.run_dir), final(unbroken.run_dir)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (config.run_dir / WEIGHTS_FILE).read_bytes() == (unbroken.run_dir / WEIGHTS_FILE).read_bytes()
    assert result.budget.trainable == sum(tensor.numel() for tensor in ours.values())
    scores = evaluate_run(config, tiny_data, config.run_dir)
    assert scores.decode == "generate"
    assert 0 <= scores.metrics["vqa_accuracy"] <= 100
    again = evaluate_run(config, tiny_data, config.run_dir, folder=tmp_path)
    assert again.metrics == scores.metrics


@pytest.mark.parametrize("family", LIKE_LLAMA)
def test_it_trains_resumes_and_is_scored_on_every_family(family, folders, tiny_data, label_data, tmp_path):
    """Images with DePT, and a text task with what changes weights beside it."""
    unbroken = config_of("dept", folders[family], tmp_path / "unbroken")
    train(unbroken, tiny_data)
    config = config_of("dept", folders[family], tmp_path / "run")
    with pytest.raises(KilledError):
        train(config, tiny_data, callbacks=[Kill()])
    train(config, tiny_data, resume=True)
    assert (config.run_dir / WEIGHTS_FILE).read_bytes() == (unbroken.run_dir / WEIGHTS_FILE).read_bytes()
    assert evaluate_run(config, tiny_data, config.run_dir).decode == "generate"
    text = config_of("dept+lora", folders[family], tmp_path / "text", task="cola", loop__max_steps=2)
    train(text, label_data)
    scores = evaluate_run(text, label_data, text.run_dir)
    assert (scores.decode, scores.metrics["invalid"]) == ("score", 0)


ENCODER_ALONE = {method.name for method in METHODS if method.needs_encoder}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (name, family)
        for name in TUNERS
        for family in ("t5", "gpt2", "llama")
        if family == "t5" or name not in ENCODER_ALONE
    ],
)
def test_it_trains_and_is_scored_on_text(name, family, t5_folder, label_data, tmp_path):
    save = {"gpt2": save_tiny_gpt2, "llama": save_tiny_llama}
    folder = t5_folder if family == "t5" else save[family](tmp_path / family)
    config = config_of(name, folder, tmp_path / "run", task="cola", loop__max_steps=2)
    train(config, label_data)
    scores = evaluate_run(config, label_data, config.run_dir, with_agreement=True)
    assert scores.decode == "score"
    assert scores.metrics["invalid"] == 0
    load_model(config.run_dir, config.model)


@pytest.mark.parametrize("name", MIX_TUNERS)
@pytest.mark.parametrize("batches", ["mixed", "one-task"])
def test_it_trains_resumes_and_is_scored_on_several_tasks(name, batches, t5_folder, mix_data, tmp_path):
    options = {"task": "vqa+coco", "mix__batches": batches}
    unbroken = config_of(name, t5_folder, tmp_path / "unbroken", **options)
    result = train(unbroken, mix_data)
    config = config_of(name, t5_folder, tmp_path / "run", **options)
    with pytest.raises(KilledError):
        train(config, mix_data, callbacks=[Kill()])
    train(config, mix_data, resume=True)
    ours, theirs = final(config.run_dir), final(unbroken.run_dir)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    trained = sum(tensor.numel() for tensor in ours.values())
    assert (result.budget.trainable, result.budget.per_task) == (trained, trained / 2)
    scores = evaluate_run(config, mix_data, config.run_dir)
    each = scores.by_task
    assert scores.metrics["mean"] == pytest.approx(
        (each["vqa"].metrics["vqa_accuracy"] + 100 * each["coco"].metrics["CIDEr"]) / 2
    )


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (name, family)
        for name in MIX_TUNERS
        for family in ("t5", "gpt2", "llama")
        if family == "t5" or name not in ENCODER_ALONE
    ],
)
def test_it_trains_and_is_scored_on_several_text_tasks(name, family, t5_folder, mix_data, tmp_path):
    save = {"gpt2": save_tiny_gpt2, "llama": save_tiny_llama}
    folder = t5_folder if family == "t5" else save[family](tmp_path / family)
    config = config_of(name, folder, tmp_path / "run", task="cola+mnli", loop__max_steps=2)
    train(config, mix_data)
    scores = evaluate_run(config, mix_data, config.run_dir)
    assert [one.decode for one in scores.by_task.values()] == ["score", "score"]
    model, _ = load_model(config.run_dir, config.model)
    assert model.tasks == ("cola", "mnli")


SCRIPT = """
import json, sys
from dept_vl.settings.load import config_from_tree
from dept_vl.system.processes import leave_launch
from dept_vl.training.trainer import train
from pathlib import Path

for tree in json.loads(Path(sys.argv[1]).read_text()):
    train(config_from_tree(tree), Path(sys.argv[2]))
leave_launch()
"""


@pytest.mark.distributed
def test_two_processes_train_every_tuner_as_one(t5_folder, mix_data, tmp_path):
    """One launch for all; each equals one process that adds two passes over the same rows."""
    trees = []
    names = TUNERS + [method.name for method in METHODS if method.needs_tasks]
    for name in names:
        options = {"model__dropout_rate": 0.0, "loop__eval_every_steps": 4}
        options |= {} if name in TUNERS else {"task": "vqa+coco"}
        if "+lora" in name:
            options["tuner__parts__lora__dropout"] = 0.0
        if name in WITH_DROPOUT:
            options["tuner__dropout"] = 0.0
        one = config_of(name, t5_folder, tmp_path / f"one-{name}", loop__accumulation_steps=2, **options)
        train(one, mix_data)
        two = config_of(name, t5_folder, tmp_path / f"two-{name}", **options)
        trees.append(yaml.safe_load(dump_config(two)))
    (tmp_path / "trees.json").write_text(json.dumps(trees))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path / "trees.json"), str(mix_data)],
        capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        one, two = final(tmp_path / f"one-{name}"), final(tmp_path / f"two-{name}")
        for key, tensor in one.items():
            message = f"{name}: {key}"
            torch.testing.assert_close(two[key], tensor, atol=2e-6, rtol=1e-5, msg=message)
