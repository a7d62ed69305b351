"""What every registered kind of image encoder promises."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.encoders import DefaultImageEncoder, registered_encoders
from dept_vl.settings.load import config_from_tree

SAMPLES = {"open-clip": {"model": "demo", "pooled_grid": None}}
"""Kind -> settings of an encoder that loads without a network."""

KINDS = {kind.__pydantic_fields__["kind"].default: kind for kind in registered_encoders()}
IMAGES = [Image.new("RGB", (60 + 30 * n, 80), (90 * n, 40, 200)) for n in range(3)]


def settings_of(kind):
    tree = {"model": {"image_encoder": {"kind": kind, **SAMPLES[kind]}}}
    return config_from_tree(tree).model.image_encoder


def pixels_of(encoder):
    return torch.stack([encoder.preprocess(image) for image in IMAGES])


def test_every_kind_has_a_sample_and_settings_that_name_none_have_one():
    assert SAMPLES.keys() == KINDS.keys()
    assert DefaultImageEncoder in KINDS.values()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_its_settings_say_without_loading(kind):
    settings = settings_of(kind)
    assert type(settings) is KINDS[kind]
    encoder = settings.load()
    assert isinstance(encoder, ImageEncoder)
    assert encoder.feature_dim == settings.feature_dim()
    assert encoder.fingerprint.items() >= settings.known_fingerprint().items()
    assert encoder.fingerprint.keys() >= settings.packages.keys()
    assert settings.label


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_frozen_tokens_of_its_shape_rounded_to_its_dtype(kind):
    encoder = settings_of(kind).load()
    tokens = encoder.train()(pixels_of(encoder))
    assert tokens.shape == (len(IMAGES), encoder.num_visual_tokens, encoder.feature_dim)
    assert tokens.isfinite().all()
    assert torch.equal(tokens, tokens.to(encoder.dtype).float())
    assert not tokens.requires_grad
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_two_loads_agree_on_fingerprint_and_features(kind):
    first, second = settings_of(kind).load(), settings_of(kind).load()
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first(pixels_of(first)), second(pixels_of(second)))


@pytest.mark.parametrize("kind", KINDS)
def test_float32_features_have_the_bits_of_a_batch_of_one(kind):
    encoder = replace(settings_of(kind), dtype="float32").load()
    pixels = pixels_of(encoder)
    assert torch.equal(encoder(pixels), torch.cat([encoder(one[None]) for one in pixels]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_its_features_changes_what_a_store_is_found_by(kind):
    settings = settings_of(kind)
    for changes in ({"pooled_grid": 1}, {"dtype": "bfloat16"}, {"exif": "ignore"}):
        other = replace(settings, **changes)
        assert other.known_fingerprint() != settings.known_fingerprint()
        assert other.load().fingerprint != settings.load().fingerprint


def test_fingerprints_tell_kinds_apart():
    assert len({settings_of(kind).known_fingerprint().get("kind") for kind in KINDS}) == len(KINDS)
