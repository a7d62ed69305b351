"""The connector of a vision-language model's images, trained beside a method: from a run to its adapter and back."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

import dept_vl
from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import load_backbone
from dept_vl.serving.mixed import mixable
from tests.commands import prepared_rows, run
from tests.models.vision_language_folders import save_tiny_vlm
from tests.tuners.adapted import settings

PROMPT = settings("prompt-tuning", num_virtual_tokens=2)
WORDS = (
    "--tuner.budget_tokens", "11", "--tuner.num_virtual_tokens", "4", "--data.max_source_length", "24",
    "--data.max_target_length", "5", "--data.batch_size", "4", "--loop.max_steps", "4", "--loop.eval_every_steps", "4",
    "--loop.save_every_steps", "2", "--loop.eval_rows", "8", "--model.train_connector", "true",
)  # fmt: skip


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    return save_tiny_vlm("qwen3_vl", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def trained(vlm, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "--task", "vqa", "--data-dir", data, "--model.backbone", vlm, *WORDS, "--output-dir", folder]
    assert main([str(word) for word in words]) == 0
    return folder


def tensors_of(folder):
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary


def connector(backbone):
    return {
        f"backbone.model.{name}": p.detach()
        for name, p in backbone.model.named_parameters()
        if name.startswith(("model.visual.merger.", "model.visual.deepstack_merger_list."))
    }


def test_the_adapter_holds_it_and_the_run_is_scored_and_asked_with_it(capsys, trained, vlm, data):
    frozen = connector(load_backbone(str(vlm))[0])
    tensors = tensors_of(trained)
    assert tensors.keys() == {*frozen, "tuner.soft_prompt", "tuner.lowrank_a", "tuner.lowrank_b"}
    assert any(not torch.equal(tensors[name], value) for name, value in frozen.items())
    assert json.loads((trained / "adapter_config.json").read_text())["train_connector"] is True
    assert "train_connector=True" in (trained / "README.md").read_text()
    code, out, error = run(capsys, "eval", "--checkpoint", trained)
    assert (code, "vqa_accuracy" in out) == (0, True), error
    assert "connector" in run(capsys, "ablate", trained, "--parts", "connector")[1]
    model = dept_vl.load(trained)
    held = connector(model.parts.model.backbone)
    assert all(torch.equal(held[name], tensors[name]) for name in held)
    picture = next((data.parent / "raw").rglob("*.jpg"))
    assert isinstance(model.answer(picture, "what is it?"), str)
    assert mixable(model.parts.model) is None  # its rows read an image otherwise than other adapters' do


def test_it_is_counted_and_has_the_rate_of_a_projection(capsys, vlm, data):
    words = ["--task", "vqa", "--data-dir", data, "--model.backbone", vlm, *WORDS[:6]]
    _, frozen, _ = run(capsys, "info", *words)
    code, out, error = run(capsys, "info", *words, "--model.train_connector", "true")
    assert code == 0, error
    assert "connector" in out
    assert "connector" not in frozen


def test_a_run_that_is_stopped_goes_on_to_the_bit(capsys, trained, vlm, data, tmp_path):
    parts = shutil.copytree(trained, tmp_path / "parts")
    shutil.rmtree(parts / "checkpoints" / "step-00000004")
    words = ["--task", "vqa", "--data-dir", data, "--model.backbone", vlm, *WORDS, "--output-dir", parts, "--resume"]
    code, _, error = run(capsys, "train", *words)
    assert code == 0, error
    for file in sorted((trained / "checkpoints" / "step-00000004").glob("*.safetensors")):
        assert (parts / "checkpoints" / "step-00000004" / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_run_may_start_from_it_with_or_without_training_it(capsys, trained, vlm, data, tmp_path):
    words = ["--task", "vqa", "--data-dir", data, "--model.backbone", vlm, *WORDS, "--loop.max_steps", "1"]
    for number, more in enumerate(([], ["--model.train_connector", "false"])):
        folder = tmp_path / str(number)
        code, _, error = run(capsys, "train", *words, *more, "--init-from", trained, "--output-dir", folder)
        assert code == 0, error
        notes = json.loads((folder / "run.json").read_text())["init"]["notes"]
        assert [note for note in notes if "connector" in note] == (
            ["the connector starts as the backbone has it: this run trains none"] if more else []
        )


def test_methods_that_train_the_backbone_leave_images_as_they_are(vlm):
    for trains_connector in (False, True):
        config = ModelConfig(backbone=str(vlm), train_connector=trains_connector)
        model, _ = build_model(config, settings("fine-tuning"), max_source_length=8, feature_dim=None, seed=0)
        groups = {group.name: {id(p) for p in group.parameters} for group in model.param_groups()}
        assert groups.keys() == ({"backbone", "connector"} if trains_connector else {"backbone"})
        names = {id(p): name for name, p in model.backbone.model.named_parameters()}
        assert not {names[one] for one in groups["backbone"]} & model.backbone.image_parameters()


def test_what_is_folded_has_it_among_its_weights(capsys, vlm, data, tmp_path):
    words = ["--task", "vqa", "--data-dir", data, "--model.backbone", vlm, *WORDS[4:], "--tuner", "lora"]
    assert run(capsys, "train", *words, "--output-dir", tmp_path / "run")[0] == 0
    code, _, error = run(capsys, "fold", tmp_path / "run", "--out", tmp_path / "plain")
    assert code == 0, error
    assert "train_connector" not in json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert tensors_of(tmp_path / "plain") == {}
    models = [dept_vl.load(tmp_path / name).parts.model.backbone for name in ("run", "plain")]
    first, second = (connector(backbone) for backbone in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("run", "plain"):
        assert run(capsys, "eval", "--checkpoint", tmp_path / name)[0] == 0
    said = [(tmp_path / name / "predictions-test.json").read_bytes() for name in ("run", "plain")]
    assert said[0] == said[1]


# What is refused


def test_an_adapter_with_it_where_it_is_not_said(trained, vlm):
    with pytest.raises(CheckpointError, match=r"model\.train_connector: saved for True, this run has False"):
        load_model(trained, ModelConfig(backbone=str(vlm)))
    again, _ = load_model(trained, ModelConfig(backbone=str(vlm), train_connector=True))
    assert again.config.train_connector


def test_a_backbone_without_one(t5_folder):
    with pytest.raises(ConfigError, match=r"model\.train_connector: is for a vision-language model"):
        build_model(
            ModelConfig(backbone=str(t5_folder), train_connector=True), PROMPT, max_source_length=8, feature_dim=None,
            seed=0,
        )  # fmt: skip


def test_weights_in_bfloat16(vlm):
    config = ModelConfig(backbone=str(vlm), train_connector=True, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"model\.dtype: .*what is trained is kept in float32"):
        build_model(config, PROMPT, max_source_length=8, feature_dim=None, seed=0)


def test_a_task_without_images(capsys, vlm, data, tmp_path):
    words = ["--task", "cola", "--data-dir", data, "--model.backbone", vlm, *WORDS, "--output-dir", tmp_path / "run"]
    code, _, error = run(capsys, "train", *words)
    assert (code, "model.train_connector: task 'cola' reads no images" in error) == (2, True), error
    assert not (tmp_path / "run").exists()
