"""The adapter on disk: bit-equal round trip, and strict about everything else."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import ADAPTER_CONFIG_FILE, CARD_FILE, WEIGHTS_FILE, load_adapter, read_adapter_config
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.tasks import get_task
from dept_vl.tuners import DeptConfig, PromptTuningConfig

FEATURE_DIM, S = 10, 8
TUNER = DeptConfig(budget_tokens=12, num_virtual_tokens=3, scaling="alpha/sqrt(r)", lowrank_init="kaiming-uniform")
FINGERPRINT = {"model": "RN101", "weights_sha256": "0" * 64}


def make(folder, *, tuner=TUNER, feature_dim=FEATURE_DIM, max_source_length=S, seed=0, **settings):
    config = ModelConfig(backbone=str(folder), **settings)
    model, _ = build_model(config, tuner, max_source_length=max_source_length, feature_dim=feature_dim, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return model.eval()


@pytest.fixture
def saved(t5_folder, tmp_path):
    make(t5_folder).save_pretrained(tmp_path / "run", task=get_task("vqa"), features=FINGERPRINT)
    return tmp_path / "run"


def rewrite(folder, change):
    """Applies `change` to the settings, in the JSON file and in the copy inside the weights alike."""
    described = json.loads((folder / ADAPTER_CONFIG_FILE).read_text())
    change(described)
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(described))
    metadata = {"format": "pt", "adapter_config": json.dumps(described)}
    save_file(load_file(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE, metadata)


@pytest.mark.parametrize(
    ("tuner", "feature_dim", "settings"),
    [
        (TUNER, FEATURE_DIM, {}),
        (TUNER, None, {}),
        (DeptConfig(budget_tokens=12, num_virtual_tokens=0), FEATURE_DIM, {}),
        (PromptTuningConfig(num_virtual_tokens=5), FEATURE_DIM, {"visual_projection": "vl-t5"}),
        (TUNER, FEATURE_DIM, {"visual_position_bias": "sequential"}),
    ],
)
def test_round_trip_is_bit_equal(t5_folder, tmp_path, tuner, feature_dim, settings):
    model = make(t5_folder, tuner=tuner, feature_dim=feature_dim, **settings)
    model.save_pretrained(tmp_path)
    loaded, codec = load_model(tmp_path, model.config, max_source_length=S)
    assert loaded.trainable_state().keys() == model.trainable_state().keys()
    for name, tensor in model.trainable_state().items():
        assert torch.equal(tensor, loaded.trainable_state()[name])
    ids, mask, labels = torch.tensor([[5, 6, 1]]), torch.ones(1, 3, dtype=torch.long), torch.tensor([[7, 1]])
    features = None if feature_dim is None else torch.randn(1, 4, feature_dim)
    expected = model(ids, mask, labels, features).logits
    assert torch.equal(loaded.eval()(ids, mask, labels, features).logits, expected)
    assert codec.source_ids(["what"], S) == [[3, 1]]


def test_files_hold_the_trainable_tensors_and_nothing_else(saved, t5_folder):
    assert {path.name for path in saved.iterdir()} == {WEIGHTS_FILE, ADAPTER_CONFIG_FILE, CARD_FILE}
    tensors, config = load_adapter(saved)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "tuner.soft_prompt": (3, 16),
        "tuner.lowrank_a": (S, 6),
        "tuner.lowrank_b": (6, 16),
        "visual_projection.linear.weight": (16, FEATURE_DIM),
        "visual_projection.linear.bias": (16,),
    }
    assert config.tuner == replace(TUNER, row_alignment="first-token")  # what null means on a T5
    assert (config.facts["m"], config.facts["r"], config.max_source_length) == (3, 6, S)
    assert (config.task, config.features) == ("vqa", FINGERPRINT)
    assert config.backbone.name == str(t5_folder)  # so that it can be loaded again


def test_model_card_says_what_it_is(saved):
    card = (saved / CARD_FILE).read_text()
    assert card.startswith("---\n")
    for fact in ("vqa", "m = 3, r = 6, s = 8", "RN101", "2309.05173", "load_model"):
        assert fact in card


def test_saving_again_replaces_the_adapter_and_keeps_other_files(saved, t5_folder):
    (saved / "metrics.jsonl").write_text("{}\n")
    other = make(t5_folder, seed=5)
    other.save_pretrained(saved)
    tensors, config = load_adapter(saved)
    assert torch.equal(tensors["tuner.soft_prompt"], other.tuner.soft_prompt)
    assert config.task is None
    assert (saved / "metrics.jsonl").exists()
    assert not list(saved.glob(".*"))


def test_values_that_are_not_finite_are_not_saved(t5_folder, tmp_path):
    model = make(t5_folder)
    with torch.no_grad():
        model.tuner.lowrank_a[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite.*tuner\.lowrank_a"):
        model.save_pretrained(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_that_are_not_finite_are_not_loaded(saved):
    tensors = load_file(saved / WEIGHTS_FILE)
    tensors["tuner.lowrank_b"][0, 0] = float("inf")
    described = (saved / ADAPTER_CONFIG_FILE).read_text()
    save_file(tensors, saved / WEIGHTS_FILE, {"adapter_config": described})
    with pytest.raises(CheckpointError, match=r"not finite.*tuner\.lowrank_b"):
        load_adapter(saved)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, ADAPTER_CONFIG_FILE])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"no adapter here.*{re.escape(name)}"):
        load_adapter(saved)


@pytest.mark.parametrize("keep", [0, 5, 100, -8])
def test_weights_cut_short(saved, keep):
    content = (saved / WEIGHTS_FILE).read_bytes()
    (saved / WEIGHTS_FILE).write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        load_adapter(saved)


def test_pickle_is_not_read(saved):
    torch.save({"tuner.soft_prompt": torch.zeros(3, 16)}, saved / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        load_adapter(saved)


def test_settings_cut_short(saved):
    content = (saved / ADAPTER_CONFIG_FILE).read_text()
    (saved / ADAPTER_CONFIG_FILE).write_text(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_adapter(saved)


def test_settings_altered_beside_the_weights(saved):
    described = json.loads((saved / ADAPTER_CONFIG_FILE).read_text())
    described["tuner"]["alpha"] = 16.0
    (saved / ADAPTER_CONFIG_FILE).write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_adapter(saved)


def test_weights_of_another_program(saved):
    save_file(load_file(saved / WEIGHTS_FILE), saved / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="not written by dept-vl"):
        load_adapter(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(trust_remote_code=True), "trust_remote_code"),
        (lambda c: c["tuner"].update(tokenizer_kwargs={"trust_remote_code": True}), "tokenizer_kwargs"),
        (lambda c: c["backbone"].update(url="x"), r"backbone\.url"),
        (lambda c: c.pop("max_source_length"), "max_source_length"),
        (lambda c: c.update(facts={"m": [3]}), r"facts\.m"),
        (lambda c: c["tuner"].update(name="lora"), "lora"),
        (lambda c: c.update(format_version=3), "format_version is 3, this package reads 1 and 2"),
    ],
)
def test_settings_with_unknown_or_bad_keys(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(saved)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_settings_that_are_no_mapping(saved, content):
    (saved / ADAPTER_CONFIG_FILE).write_text(content)
    with pytest.raises(CheckpointError, match="format_version is None"):
        load_adapter(saved)


def test_an_adapter_of_before_other_families_loads_as_t5s(saved, t5_folder):
    def remove(described):
        del described["backbone"]["family"], described["answer_cue"], described["tuner"]["row_alignment"]

    expected = load_adapter(saved)
    rewrite(saved, remove)
    assert load_adapter(saved)[1] == expected[1]
    model, codec = load_model(saved, ModelConfig(backbone=str(t5_folder)))
    assert torch.equal(model.tuner.soft_prompt, expected[0]["tuner.soft_prompt"])
    assert codec.answer_cue == ""


def test_rows_of_a_t5_are_counted_from_the_first_token_where_a_file_leaves_it_open(saved):
    rewrite(saved, lambda described: described["tuner"].update(row_alignment=None))
    assert read_adapter_config(saved).tuner.row_alignment == "first-token"


def test_the_model_card_names_an_answer_cue(t5_folder, tmp_path):
    model = make(t5_folder)
    model.answer_cue = " answer:"
    model.save_pretrained(tmp_path)
    assert "| Answer cue | ` answer:` |" in (tmp_path / CARD_FILE).read_text()
    assert load_model(tmp_path, model.config)[1].answer_cue == " answer:"


def test_other_backbone_names_both_sides(saved, save_tiny_t5, tmp_path):
    other = save_tiny_t5(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"backbone\.weights_sha256: saved for '\w{64}', this run has '\w{64}'"):
        load_model(saved, ModelConfig(backbone=str(other)))


def test_backbone_of_another_width_names_both_sides(saved, save_tiny_t5, tmp_path):
    other = save_tiny_t5(tmp_path / "other", d_model=24)
    with pytest.raises(CheckpointError, match=r"backbone\.d_model: saved for 16, this run has 24"):
        make(other, tuner=replace(TUNER, allow_nearest=True)).load_adapter(saved)


def test_other_text_length_names_both_sides(saved, t5_folder):
    with pytest.raises(CheckpointError, match=r"data\.max_source_length: saved for 8, this run has 16"):
        load_model(saved, ModelConfig(backbone=str(t5_folder)), max_source_length=16)


def test_features_of_another_width_names_both_sides(saved, t5_folder):
    with pytest.raises(CheckpointError, match=r"visual\.feature_dim: saved for 10, this run has 768"):
        load_model(saved, ModelConfig(backbone=str(t5_folder)), feature_dim=768)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visual_projection": "vl-t5"}, r"visual\.projection: saved for 'linear', this run has 'vl-t5'"),
        ({"visual_position_bias": "sequential"}, r"visual\.position_bias: saved for 'zero', this run has 'sequential'"),
        ({"feature_dim": 7}, r"visual\.feature_dim: saved for 10, this run has 7"),
        ({"feature_dim": None}, r"visual\.feature_dim: saved for 10, this run has None"),
        ({"tuner": replace(TUNER, scaling="one")}, r"tuner\.scaling: saved for 'alpha/sqrt\(r\)', this run has 'one'"),
        ({"tuner": PromptTuningConfig(num_virtual_tokens=3)}, r"tuner\.name: saved for 'dept'.*'prompt-tuning'"),
        ({"tuner": replace(TUNER, num_virtual_tokens=6)}, "tuner's r: saved for 6, this run has 4"),
    ],
)
def test_other_model_names_both_sides(saved, t5_folder, settings, message):
    model = make(t5_folder, **settings)
    before = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    with pytest.raises(CheckpointError, match=message):
        model.load_adapter(saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.trainable_state().items())


def test_learning_rates_do_not_decide_whether_an_adapter_fits(saved, t5_folder):
    model = make(t5_folder, tuner=replace(TUNER, lr=0.7, lowrank_lr=0.07), seed=4)
    assert model.load_adapter(saved).tuner.lr == TUNER.lr
    assert torch.equal(model.tuner.soft_prompt, load_adapter(saved)[0]["tuner.soft_prompt"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("tuner.lowrank_a"), r"missing tuner\.lowrank_a"),
        (lambda t: t.update({"t5.shared.weight": torch.zeros(2)}), r"unexpected t5\.shared\.weight"),
        (
            lambda t: t.update({"tuner.soft_prompt": torch.zeros(4, 16)}),
            r"soft_prompt is \(4, 16\) torch\.float32, the model has \(3, 16\)",
        ),
        (lambda t: t.update({"tuner.soft_prompt": torch.zeros(3, 16).half()}), r"torch\.float16.*torch\.float32"),
    ],
)
def test_other_tensors_name_both_sides_and_change_nothing(saved, t5_folder, change, message):
    tensors = load_file(saved / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, saved / WEIGHTS_FILE, {"adapter_config": (saved / ADAPTER_CONFIG_FILE).read_text()})
    model = make(t5_folder, seed=9)
    before = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    with pytest.raises(CheckpointError, match=message):
        model.load_adapter(saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.trainable_state().items())


def test_too_many_tensors_are_refused_by_the_header_alone(saved, t5_folder):
    tensors = {f"t{index}": torch.zeros(1) for index in range(300)}
    save_file(tensors, saved / WEIGHTS_FILE, {"adapter_config": (saved / ADAPTER_CONFIG_FILE).read_text()})
    with pytest.raises(CheckpointError, match=r"missing tuner\.lowrank_a; .*\.\.\. \(305 in all\)"):
        make(t5_folder).load_adapter(saved)
