"""Importing released adapters as runs, and exporting runs."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.adapter.files import CARD_FILE, load_adapter
from dept_vl.models.adapter.released_format import LOWRANK_A, LOWRANK_B, PROMPT, read_released, write_released
from dept_vl.models.adapter.released_format import WEIGHTS_FILE as RELEASED_WEIGHTS
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.runs.released import export_released, import_released
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.tuners import DeptConfig, PromptTuningConfig
from dept_vl.tuners.context import TunerContext
from tests.models.adapter.goldens.random_adapters import CASES, random_backbone
from tests.models.adapter.goldens.random_values import D_MODEL, LABELS, TEXTS, draw

S = 8
TUNER = DeptConfig(num_virtual_tokens=3, rank=5, allow_nearest=True, scaling="alpha/sqrt(r)")


def trained(t5_folder, run_dir, tuner=TUNER, feature_dim=None):
    """Writes a run's adapter of random values."""
    config = ModelConfig(backbone=str(t5_folder))
    model, _ = build_model(config, tuner, max_source_length=S, feature_dim=feature_dim, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.tuner.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(run_dir, task=get_task("vqa"))
    return model.eval()


def logits(model):
    ids, mask, labels = torch.tensor([[5, 6, 7, 1]]), torch.ones(1, 4, dtype=torch.long), torch.tensor([[7, 1]])
    return model.eval()(ids, mask, labels).logits


@pytest.mark.parametrize("command", ["import-released", "import-official"])  # its earlier name
def test_a_published_adapter_becomes_a_run_folder(excerpt, tmp_path, capsys, command):
    run_dir = tmp_path / "run"
    folder = str(excerpt / "dept_official" / "cola")
    assert main([command, folder, "--out", str(run_dir), "--task", "vqa"]) == 0
    assert "m = 80, r = 15, s = 256" in capsys.readouterr().out
    config = load_config(run_dir / "config.yaml")
    assert (config.model.backbone, config.data.max_source_length) == ("t5-base", 256)
    tensors, adapter = load_adapter(run_dir)
    assert set(tensors) == {"tuner.soft_prompt", "tuner.lowrank_a", "tuner.lowrank_b"}
    assert adapter.tuner == config.tuner
    assert adapter.backbone.weights_sha256 is None
    assert json.loads((run_dir / "run.json").read_text())["imported"]["lowrank"] == "imported"
    assert "low-rank pair: imported" in (run_dir / CARD_FILE).read_text()


@pytest.mark.parametrize("has_both", [False, True])
def test_an_adapter_in_safetensors_as_peft_writes_it_is_read_alike(excerpt, tmp_path, has_both):
    folder = shutil.copytree(excerpt / "dept_official" / "cola", tmp_path / "cola")
    pickled = folder / RELEASED_WEIGHTS
    save_file(torch.load(pickled, weights_only=True, map_location="cpu"), folder / "adapter_model.safetensors")
    import_released(folder, tmp_path / "from-bin")
    if not has_both:
        pickled.unlink()
    adapter = import_released(folder, tmp_path / "run")
    assert adapter.origin.lowrank == "imported"
    first, second = load_adapter(tmp_path / "from-bin")[0], load_adapter(tmp_path / "run")[0]
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_a_prompt_alone_is_recorded_as_such(excerpt, tmp_path):
    adapter = import_released(excerpt / "dept_official" / "cola", tmp_path / "run", task="vqa", prompt_only=True)
    assert (adapter.tuner.name, adapter.facts["m"], adapter.max_source_length) == ("prompt-tuning", 80, 256)
    assert adapter.origin.lowrank == "left out"
    assert "low-rank pair: left out" in (tmp_path / "run" / CARD_FILE).read_text()


def test_a_prompt_published_without_its_pair_is_recorded_as_such(excerpt, tmp_path):
    folder = shutil.copytree(excerpt / "dept_official" / "cola", tmp_path / "cola")
    content = torch.load(folder / RELEASED_WEIGHTS, weights_only=True, map_location="cpu")
    torch.save({PROMPT: content[PROMPT]}, folder / RELEASED_WEIGHTS)
    adapter = import_released(folder, tmp_path / "run", prompt_only=True)
    assert adapter.origin.lowrank == "not released"
    assert "low-rank pair: not released" in (tmp_path / "run" / CARD_FILE).read_text()


def test_the_folder_names_the_task_and_the_protocol_is_the_paper_s(excerpt, tmp_path):
    import_released(excerpt / "dept_official" / "cola", tmp_path / "run")
    config = load_config(tmp_path / "run" / "config.yaml")
    assert (config.task, config.data.protocol) == ("cola", "paper")


@pytest.mark.parametrize(
    ("theirs", "ours"), [("superglue-wsc.fixed", "superglue-wsc"), ("yelp_polarity", "yelp-polarity")]
)
def test_released_task_names_become_ours(t5_folder, tmp_path, theirs, ours):
    trained(t5_folder, tmp_path / "ours")
    export_released(tmp_path / "ours", tmp_path / theirs)
    adapter = import_released(tmp_path / theirs, tmp_path / "run", backbone=str(t5_folder))
    assert (adapter.task, adapter.max_source_length) == (ours, S)


def test_an_imported_adapter_computes_what_the_exported_one_did(t5_folder, tmp_path):
    model = trained(t5_folder, tmp_path / "ours")
    export_released(tmp_path / "ours", tmp_path / "theirs")
    adapter = import_released(tmp_path / "theirs", tmp_path / "back", task="vqa", backbone=str(t5_folder))
    assert adapter.backbone == model.adapter_config().backbone
    first, second = load_adapter(tmp_path / "ours")[0], load_adapter(tmp_path / "back")[0]
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    loaded, _ = load_model(tmp_path / "back", ModelConfig(backbone=str(t5_folder)))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("scaling", ["alpha/sqrt(r)", "one"])
def test_the_released_code_loads_an_export_and_computes_the_same(tmp_path, scaling):
    """Needs a checkout of ZhengxiangShi/DePT, named by DEPT_RELEASED_CHECKOUT."""
    checkout = os.environ.get("DEPT_RELEASED_CHECKOUT")
    if checkout is None:
        pytest.skip("DEPT_RELEASED_CHECKOUT names no checkout of the released code")
    case = CASES[0]
    tuner = DeptConfig(num_virtual_tokens=5, rank=4, allow_nearest=True, scaling=scaling)
    built = AdaptedModel(
        random_backbone(case), tuner.empty(TunerContext(D_MODEL, case.max_source_length)), None, ModelConfig()
    )
    with torch.no_grad():
        for name, parameter in built.tuner.named_parameters():
            parameter.copy_(draw(name, tuple(parameter.shape), seed=4, scale=0.5))
    built.save_pretrained(tmp_path / "ours")
    export_released(tmp_path / "ours", tmp_path / "theirs")
    code = (
        "import sys, json, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "from tests.models.adapter.goldens.released_forward import CASES, compute, load_released, random_t5\n"
        "model = load_released(pathlib.Path(sys.argv[2]), random_t5(CASES[0]))\n"
        "print(json.dumps(compute(model, CASES[0])['logits'][1]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, checkout, str(tmp_path / "theirs")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ids, labels = torch.tensor([TEXTS[1]]), torch.tensor([LABELS[1]])
    ours = built.eval()(ids, torch.ones_like(ids), labels).logits[0]
    torch.testing.assert_close(ours, torch.tensor(json.loads(done.stdout)), rtol=0, atol=1e-4)


def test_scaling_one_is_folded_into_b(t5_folder, tmp_path):
    tuner = DeptConfig(num_virtual_tokens=3, rank=5, allow_nearest=True, scaling="one")
    model = trained(t5_folder, tmp_path / "ours", tuner)
    export_released(tmp_path / "ours", tmp_path / "theirs")
    exported = torch.load(tmp_path / "theirs" / RELEASED_WEIGHTS, weights_only=True)
    assert torch.equal(exported[PROMPT], model.tuner.soft_prompt)
    torch.testing.assert_close(
        8 / 5**0.5 * exported[LOWRANK_A] @ exported[LOWRANK_B], model.tuner.lowrank_a @ model.tuner.lowrank_b
    )
    import_released(tmp_path / "theirs", tmp_path / "back", task="vqa", backbone=str(t5_folder))
    loaded, _ = load_model(tmp_path / "back", ModelConfig(backbone=str(t5_folder)))
    torch.testing.assert_close(logits(loaded), logits(model))


def test_prompt_tuning_goes_there_and_back(t5_folder, tmp_path):
    model = trained(t5_folder, tmp_path / "ours", PromptTuningConfig(num_virtual_tokens=4))
    export_released(tmp_path / "ours", tmp_path / "theirs")
    back = read_released(tmp_path / "theirs")
    assert back.tuner_settings()["name"] == "prompt-tuning"
    assert torch.equal(back.tensors["tuner.soft_prompt"], model.tuner.soft_prompt)


def test_a_visual_projection_cannot_be_exported(t5_folder, tmp_path, capsys):
    trained(t5_folder, tmp_path / "ours", feature_dim=6)
    assert main(["export-released", str(tmp_path / "ours"), "--out", str(tmp_path / "theirs")]) == 2
    assert "cannot be exported: the adapter reads images" in capsys.readouterr().err
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tuner": replace(TUNER, row_alignment="last-token")}, "row_alignment is 'last-token'"),
        ({"answer_cue": " Answer:"}, "answer cue ' Answer:'"),
    ],
)
def test_what_the_released_code_computes_otherwise_cannot_be_exported(t5_folder, tmp_path, change, match):
    model = trained(t5_folder, tmp_path / "ours")
    with pytest.raises(CheckpointError, match=match):
        write_released(tmp_path / "theirs", model.trainable_state(), replace(model.adapter_config(), **change))
    assert not (tmp_path / "theirs").exists()


def test_another_family_cannot_be_exported(t5_folder, tmp_path):
    model = trained(t5_folder, tmp_path / "ours")
    saved = model.adapter_config()
    gpt2 = replace(saved, backbone=replace(saved.backbone, family="gpt2"))
    with pytest.raises(CheckpointError, match="'gpt2' backbone"):
        write_released(tmp_path / "theirs", model.trainable_state(), gpt2)


def test_folders_that_are_taken_are_not_written_to(t5_folder, tmp_path):
    trained(t5_folder, tmp_path / "ours")
    with pytest.raises(ConfigError, match="not an empty folder"):
        export_released(tmp_path / "ours", tmp_path / "ours")
    export_released(tmp_path / "ours", tmp_path / "theirs")
    with pytest.raises(ConfigError, match="is not empty"):
        import_released(tmp_path / "theirs", tmp_path / "ours", task="vqa", backbone=str(t5_folder))


def test_weights_that_were_not_recorded_are_reported_on_loading(excerpt, tmp_path, save_tiny_t5, caplog):
    run_dir = tmp_path / "run"
    import_released(excerpt / "dept_official" / "cola", run_dir, task="vqa")
    other = save_tiny_t5(tmp_path / "t5")
    with pytest.raises(CheckpointError, match=r"backbone\.d_model: saved for 768, this run has 16"):
        load_model(run_dir, ModelConfig(backbone=str(other)))
    assert "could not be compared" in caplog.text


def test_an_unrecorded_backbone_is_one_line_of_warning(t5_folder, tmp_path, caplog):
    from dept_vl.models.adapter.fits import check_fits

    saved = trained(t5_folder, tmp_path / "ours").adapter_config()
    unrecorded = replace(saved, backbone=replace(saved.backbone, weights_sha256=None))
    with caplog.at_level(logging.WARNING):
        check_fits(tmp_path, unrecorded, saved)
    assert len(caplog.records) == 1


def test_a_backbone_of_another_shape_is_refused(excerpt, tmp_path, t5_folder):
    with pytest.raises(CheckpointError, match=r"token_dim 768, '.*' has 16; num_layers 12, '.*' has 2"):
        import_released(excerpt / "dept_official" / "cola", tmp_path / "run", task="vqa", backbone=str(t5_folder))
    assert not (tmp_path / "run").exists()


def test_a_backbone_nobody_published_must_be_named(t5_folder, tmp_path):
    trained(t5_folder, tmp_path / "ours")
    export_released(tmp_path / "ours", tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"not a published T5; give --backbone"):
        import_released(tmp_path / "theirs", tmp_path / "run", task="vqa")


def test_a_task_nobody_declared_is_refused_before_anything_is_written(excerpt, tmp_path):
    with pytest.raises(ConfigError, match="no-such-task"):
        import_released(excerpt / "dept_official" / "cola", tmp_path / "run", task="no-such-task")
    assert not (tmp_path / "run").exists()
