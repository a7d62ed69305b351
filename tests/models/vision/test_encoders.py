"""What every registered kind of image encoder promises."""

import pickle
from dataclasses import replace
from functools import cache

import pytest
import torch
from PIL import Image

from dept_vl.data.number_types import rounded
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.encoders import DefaultImageEncoder, registered_encoders
from dept_vl.models.vision.settings import MODEL_PATH
from dept_vl.settings.load import config_from_tree
from dept_vl.strict import LocalPath
from tests.models.vision.timm_models.folders import save_timm
from tests.models.vision.transformers_models.folders import save_vision_model

SAMPLES = {
    "open-clip": lambda folder: {"model": "demo", "pooled_grid": None},
    "timm": lambda folder: {"model": str(save_timm(folder, "test_efficientnet")), "pooled_grid": None},
    "transformers": lambda folder: {"model": str(save_vision_model(folder, "dinov3")), "pooled_grid": None},
}
"""Kind -> settings of an encoder that loads without a network; it may write itself into an empty folder."""

KINDS = {kind.__pydantic_fields__["kind"].default: kind for kind in registered_encoders()}
IMAGES = [Image.new("RGB", (60 + 30 * n, 80), (90 * n, 40, 200)) for n in range(3)]


@pytest.fixture(scope="module")
def settings_of(tmp_path_factory):
    """Returns the settings of a kind's sample, which is written once."""

    @cache
    def settings(kind):
        sample = SAMPLES[kind](tmp_path_factory.mktemp("samples") / kind)
        return config_from_tree({"model": {"image_encoder": {"kind": kind, **sample}}}).model.image_encoder

    return settings


def pixels_of(encoder):
    return torch.stack([encoder.preprocess(image) for image in IMAGES])


def test_every_kind_has_a_sample_and_settings_that_name_none_have_one():
    assert SAMPLES.keys() == KINDS.keys()
    assert DefaultImageEncoder in KINDS.values()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_its_settings_say_without_loading(kind, settings_of):
    settings = settings_of(kind)
    assert type(settings) is KINDS[kind]
    encoder = settings.load()
    assert isinstance(encoder, ImageEncoder)
    assert encoder.feature_dim == settings.feature_dim()
    assert encoder.fingerprint.items() >= settings.known_fingerprint().items()
    assert encoder.fingerprint.keys() >= settings.packages.keys()
    assert settings.label


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_it_gives_frozen_tokens_of_its_shape_rounded_to_its_dtype(kind, settings_of, dtype):
    encoder = replace(settings_of(kind), dtype=dtype).load()
    tokens = encoder.train()(pixels_of(encoder))
    assert tokens.shape == (len(IMAGES), encoder.num_visual_tokens, encoder.feature_dim)
    assert tokens.isfinite().all()
    assert torch.equal(tokens, rounded(tokens, encoder.stored_type))
    assert not tokens.requires_grad
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_two_loads_agree_on_fingerprint_and_features(kind, settings_of):
    first, second = settings_of(kind).load(), settings_of(kind).load()
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first(pixels_of(first)), second(pixels_of(second)))


@pytest.mark.parametrize("kind", KINDS)
def test_loader_processes_prepare_the_same_pixels(kind, settings_of):
    encoder = settings_of(kind).load()
    sent = pickle.loads(pickle.dumps(encoder.preprocess))
    for image in IMAGES:
        assert torch.equal(sent(image), encoder.preprocess(image))


@pytest.mark.parametrize("kind", KINDS)
def test_float32_features_have_the_bits_of_a_batch_of_one(kind, settings_of):
    encoder = replace(settings_of(kind), dtype="float32").load()
    pixels = pixels_of(encoder)
    assert torch.equal(encoder(pixels), torch.cat([encoder(one[None]) for one in pixels]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_its_features_changes_what_a_store_is_found_by(kind, settings_of):
    settings = settings_of(kind)
    for changes in ({"pooled_grid": 1}, {"dtype": "bfloat16"}, {"exif": "ignore"}):
        other = replace(settings, **changes)
        assert other.known_fingerprint() != settings.known_fingerprint()
        assert other.load().fingerprint != settings.load().fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_may_be_a_folder_is_marked_alike_in_every_kind(kind):
    marks = [mark for mark in KINDS[kind].__pydantic_fields__["model"].metadata if isinstance(mark, LocalPath)]
    assert marks in ([], [MODEL_PATH])


def test_fingerprints_tell_kinds_apart(settings_of):
    assert len({settings_of(kind).known_fingerprint().get("kind") for kind in KINDS}) == len(KINDS)
