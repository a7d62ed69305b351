"""Starting from a trained adapter: what is taken, what is adapted, what is refused."""

import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.tasks import get_task
from dept_vl.tuners import DeptConfig, PromptTuningConfig

S = 8


def dept(**settings):
    return DeptConfig(**{"num_virtual_tokens": 3, "rank": 4, "allow_nearest": True, **settings})


def make(folder, tuner=None, *, s=S, feature_dim=None, seed=0, is_trained=False, **settings):
    config = ModelConfig(backbone=str(folder), **settings)
    model, _ = build_model(config, tuner or dept(), max_source_length=s, feature_dim=feature_dim, seed=seed)
    if is_trained:
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def source(t5_folder, tmp_path):
    def save(tuner=None, **settings):
        model = make(t5_folder, tuner, is_trained=True, **settings)
        model.save_pretrained(tmp_path / "source", task=get_task("vqa"))
        return model, tmp_path / "source"

    return save


def state(model):
    return {name: tensor.clone() for name, tensor in model.trainable_state().items()}


def test_everything_is_taken_to_the_bit(t5_folder, source):
    theirs, folder = source(feature_dim=6)
    ours = make(t5_folder, feature_dim=6, seed=1)
    record = warm_start(ours, folder, "all")
    assert all(torch.equal(theirs.trainable_state()[name], tensor) for name, tensor in state(ours).items())
    assert record == {
        "from": str(folder), "parts": "all", "source_task": "vqa", "source_tuner": "dept", "notes": [],
    }  # fmt: skip


def test_the_prompt_alone_leaves_the_pair_and_the_projection_fresh(t5_folder, source):
    theirs, folder = source(feature_dim=6)
    ours, fresh = make(t5_folder, feature_dim=6, seed=1), make(t5_folder, feature_dim=6, seed=1)
    warm_start(ours, folder, "prompt")
    expected = {**state(fresh), "tuner.soft_prompt": theirs.tuner.soft_prompt}
    assert all(torch.equal(expected[name], tensor) for name, tensor in state(ours).items())


@pytest.mark.parametrize(("first", "second"), [(dept(), PromptTuningConfig(num_virtual_tokens=3)), (
    PromptTuningConfig(num_virtual_tokens=3), dept(rank=2))])  # fmt: skip
def test_the_prompt_goes_from_one_method_to_another(t5_folder, source, first, second):
    theirs, folder = source(first)
    ours = make(t5_folder, second, s=6)
    warm_start(ours, folder, "prompt")
    assert torch.equal(ours.tuner.soft_prompt, theirs.tuner.soft_prompt)


def test_prompt_tuning_starts_from_prompt_tuning(t5_folder, source):
    theirs, folder = source(PromptTuningConfig(num_virtual_tokens=5))
    ours = make(t5_folder, PromptTuningConfig(num_virtual_tokens=5), seed=1, s=12)
    warm_start(ours, folder, "all")
    assert torch.equal(ours.tuner.soft_prompt, theirs.tuner.soft_prompt)


def test_a_longer_text_gets_no_update_beyond_the_source_s(t5_folder, source, caplog):
    theirs, folder = source()
    ours = make(t5_folder, s=11)
    with caplog.at_level("INFO"):
        warm_start(ours, folder, "all")
    assert torch.equal(ours.tuner.lowrank_a[:S], theirs.tuner.lowrank_a)
    assert torch.equal(ours.tuner.embed(torch.zeros(1, 11, 16))[0, 3 + S :], torch.zeros(3, 16))
    assert torch.equal(ours.tuner.lowrank_b, theirs.tuner.lowrank_b)
    [line] = [record.message for record in caplog.records if "max_source_length" in record.message]
    assert "max_source_length=8, this run has 11: the first 8 rows" in line


def test_a_shorter_text_takes_the_first_rows(t5_folder, source):
    theirs, folder = source()
    ours = make(t5_folder, s=5)
    notes = warm_start(ours, folder, "all")["notes"]
    assert torch.equal(ours.tuner.lowrank_a, theirs.tuner.lowrank_a[:5])
    assert notes == ["the source was trained for max_source_length=8, this run has 5: the first 5 rows of A are taken"]


@pytest.mark.parametrize(("s", "kept"), [(5, slice(3, None)), (11, slice(None))])
def test_rows_counted_from_the_last_token_are_the_last_ones(t5_folder, source, s, kept):
    theirs, folder = source(dept(row_alignment="last-token"))
    ours = make(t5_folder, dept(row_alignment="last-token"), s=s)
    assert "the last" in warm_start(ours, folder, "all")["notes"][0]
    assert torch.equal(ours.tuner.lowrank_a[-min(s, S) :], theirs.tuner.lowrank_a[kept])
    assert not ours.tuner.lowrank_a[: -min(s, S)].any()


def test_another_scaling_keeps_the_update(t5_folder, source):
    theirs, folder = source(dept(scaling="alpha/sqrt(r)"))
    ours = make(t5_folder, dept(scaling="one"))
    assert "B is taken times 4" in warm_start(ours, folder, "all")["notes"][0]
    zeros = torch.zeros(1, S, 16)
    torch.testing.assert_close(ours.tuner.embed(zeros), theirs.tuner.embed(zeros))


@pytest.mark.parametrize("feature_dim", [None, 7])
def test_a_projection_of_another_shape_starts_fresh(t5_folder, source, feature_dim):
    theirs, folder = source(feature_dim=6)
    ours = make(t5_folder, feature_dim=feature_dim, seed=1)
    fresh = state(make(t5_folder, feature_dim=feature_dim, seed=1))
    assert "projection starts fresh" in warm_start(ours, folder, "all")["notes"][0]
    assert torch.equal(ours.tuner.lowrank_a, theirs.tuner.lowrank_a)
    assert all(torch.equal(fresh[name], tensor) for name, tensor in state(ours).items() if "projection" in name)


def test_another_backbone_of_the_same_width_is_reported(tmp_path, save_tiny_t5, source):
    _, folder = source()
    other = make(save_tiny_t5(tmp_path / "other", seed=5))
    assert re.search(r"has other weights than .*/other$", warm_start(other, folder, "all")["notes"][0])


@pytest.mark.parametrize("parts", ["all", "prompt"])
def test_a_source_of_another_width_is_refused(tmp_path, save_tiny_t5, source, parts):
    _, folder = source()
    ours = make(save_tiny_t5(tmp_path / "wide", d_model=24), dept())
    before = state(ours)
    with pytest.raises(CheckpointError, match=r"init\.from: .*source.*d_model=16, this run's .*/wide has d_model=24"):
        warm_start(ours, folder, parts)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(ours).items())


@pytest.mark.parametrize(
    ("tuner", "parts", "match"),
    [
        (dept(num_virtual_tokens=2), "all", "num_virtual_tokens=3, this run has 2"),
        (dept(rank=5), "all", "rank=4, this run has 5"),
        (dept(row_alignment="last-token"), "all", "row_alignment=first-token, this run has last-token"),
        (PromptTuningConfig(num_virtual_tokens=3), "all", "trained with 'dept', this run has 'prompt-tuning'"),
        (PromptTuningConfig(num_virtual_tokens=4), "prompt", "num_virtual_tokens=3, this run's has 4"),
        (dept(num_virtual_tokens=0), "prompt", "num_virtual_tokens=3, this run's has 0"),
    ],
)
def test_a_source_of_other_sizes_is_refused_and_changes_nothing(t5_folder, source, tuner, parts, match):
    _, folder = source()
    ours = make(t5_folder, tuner)
    before = state(ours)
    with pytest.raises(CheckpointError, match=re.escape(match)):
        warm_start(ours, folder, parts)
    assert all(torch.equal(before[name], tensor) for name, tensor in state(ours).items())


def test_tensors_that_are_not_what_the_source_s_settings_say_are_refused(t5_folder, source):
    _, folder = source()
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors["tuner.soft_prompt"] = tensors["tuner.soft_prompt"][:, :1].contiguous()
    save_file(tensors, folder / WEIGHTS_FILE, metadata)
    with pytest.raises(CheckpointError, match=r"soft_prompt is \(3, 1\) .*, the model has \(3, 16\)"):
        warm_start(make(t5_folder), folder, "prompt")


def test_a_folder_without_an_adapter_is_refused(t5_folder, tmp_path):
    with pytest.raises(CheckpointError, match="no adapter here"):
        warm_start(make(t5_folder), tmp_path, "all")
