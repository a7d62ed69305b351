"""ULPT's prompt is of few trained numbers and a projection that a seed gives back."""

from dataclasses import replace

import pytest
import torch

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import WEIGHTS_FILE, read_adapter_config
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.build import load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from tests.tuners.adapted import logits, make, settings


def test_parameters_on_t5_base():
    model = build_meta_model(ModelConfig(backbone="t5-base"), settings("ulpt"), max_source_length=256, feature_dim=None)
    assert dict(model.parameter_budget().groups) == {"soft_prompt": 1_736}


def test_its_prompt_written_out(folders):
    tuner = make(folders["t5"], settings("ulpt", num_virtual_tokens=4, rank=3), moved=0.3).tuner
    prompt = tuner.as_prompt()
    assert not prompt.requires_grad
    for token in range(4):
        for feature in range(16):
            projected = sum(tuner.codes[token, k] * tuner.projection[k, feature] for k in range(3))
            expected = tuner.scale[feature] * projected + tuner.shift[feature]
            torch.testing.assert_close(prompt[token, feature], expected.detach(), rtol=1e-5, atol=1e-6)


def test_with_the_identity_as_projection_it_is_prompt_tuning_with_its_codes(folders):
    tuner = make(folders["t5"], settings("ulpt", num_virtual_tokens=4, rank=16)).tuner
    tuner.projection.copy_(torch.eye(16))
    assert torch.equal(tuner.as_prompt(), tuner.codes)


def test_the_projection_is_xavier_s_and_a_function_of_its_seed_alone(folders):
    def projection(seed, **own):
        return make(folders["t5"], settings("ulpt", rank=2, **own), seed=seed).tuner.projection

    first = projection(0, num_virtual_tokens=4)
    assert torch.equal(first, projection(0, num_virtual_tokens=9))
    assert not torch.equal(first, projection(1))
    assert torch.equal(projection(5, projection_seed=3), projection(6, projection_seed=3))
    assert torch.equal(projection(3), projection(6, projection_seed=3))
    wide = make(folders["t5"], settings("ulpt", rank=2000)).tuner.projection
    bound = (6 / 2016) ** 0.5
    assert 0.99 * bound < wide.abs().max() <= bound
    assert abs(wide.std() - bound / 3**0.5) < 0.01 * bound


def test_codes_and_projection_are_not_of_the_same_draws(folders):
    tuner = make(folders["t5"], settings("ulpt", num_virtual_tokens=1000, rank=16)).tuner
    one, other = tuner.codes.detach().flatten()[:256], tuner.projection.flatten()[:256]
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.2


def test_the_adapter_has_the_projection_s_seed_and_not_its_values(folders, tmp_path):
    model = make(folders["t5"], settings("ulpt", num_virtual_tokens=4), seed=11, moved=0.2)
    model.save_pretrained(tmp_path)
    saved = read_adapter_config(tmp_path)
    assert saved.tuner.projection_seed == 11
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < 4_000
    assert set(model.adapter_state()) == {"tuner.codes", "tuner.scale", "tuner.shift"} | {
        f"visual_projection.{name}" for name, _ in model.visual_projection.named_parameters()
    }
    loaded, _ = load_model(tmp_path, model.config)
    assert torch.equal(loaded.tuner.projection, model.tuner.projection)
    assert torch.equal(logits(loaded), logits(model))


def test_an_adapter_of_another_projection_is_refused(folders, tmp_path):
    """Were the generator's draws ever others, the checksum among the facts would tell."""
    model = make(folders["t5"], settings("ulpt", num_virtual_tokens=4, projection_seed=1))
    model.tuner.projection.add_(1e-3)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"tuner's projection: saved for '[0-9a-f]{12}', this run has"):
        load_model(tmp_path, model.config)


def test_a_run_starts_from_one_with_the_same_projection_alone(folders, tmp_path):
    tuner = settings("ulpt", num_virtual_tokens=4, projection_seed=4)
    model = make(folders["t5"], tuner, seed=1, moved=0.2)
    model.save_pretrained(tmp_path)
    fresh = make(folders["t5"], tuner, seed=2)
    warm_start(fresh, tmp_path, "all")
    assert torch.equal(logits(fresh), logits(model))
    other = make(folders["t5"], replace(tuner, projection_seed=None), seed=2)
    with pytest.raises(CheckpointError, match=r"drawn from 4, this run's from 2, .* set tuner.projection_seed"):
        warm_start(other, tmp_path, "all")
