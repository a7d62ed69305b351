"""What a backbone's config.json says of it before it is loaded."""

import json

import huggingface_hub
import pytest
from transformers import T5Config

from dept_vl.errors import ConfigError
from dept_vl.models.language.families import FAMILIES, stored_family
from dept_vl.models.language.load import backbone_config, load_backbone, meta_backbone
from dept_vl.models.language.t5_family import T5
from tests.models.language.causal_folders import save_tiny_gpt2, save_tiny_llama
from tests.models.language.hub_cache import put_into_cache

SAVED = {"gpt2": save_tiny_gpt2, "llama": save_tiny_llama}


def loaded_shape(config):
    return meta_backbone(config).tuner_context(8).shape


@pytest.mark.parametrize("name", ["demo", "t5-base", "google/t5-v1_1-small", "google/flan-t5-large", "gpt2-medium"])
def test_the_packaged_and_the_published_have_the_shape_that_is_known_of_them(name):
    family, stored = stored_family(name)
    backbone = meta_backbone(backbone_config(name))
    assert family.shape(stored) == backbone.tuner_context(8).shape
    assert family.max_positions(stored) == backbone.max_positions


@pytest.mark.parametrize(
    "own",
    [
        {"num_layers": 3, "num_decoder_layers": 1},
        {"num_layers": 3, "num_decoder_layers": None},
        {"num_layers": 3, "feed_forward_proj": "gated-silu"},
    ],
)
def test_t5s_of_other_depths_and_feed_forwards(own):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "vocab_size": 32}
    shape = T5.shape({**sizes, **own})
    assert shape is not None
    assert shape == loaded_shape(T5Config.from_dict({**sizes, **own}))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("value", [None, 0, -1, "2", True, 2.0])
def test_nothing_is_known_of_sizes_that_are_none(tmp_path, family, value):
    """What loads the backbone then decides, by its own defaults."""
    stored = json.loads((SAVED[family](tmp_path) / "config.json").read_text())
    found = FAMILIES[family]
    assert found.shape(stored) is not None
    assert found.shape({**stored, found.depth_field: value}) is None
    assert found.shape({key: size for key, size in stored.items() if key != found.width_field}) is None


def test_a_hub_id_has_the_settings_that_are_in_the_cache_and_not_the_published_ones(t5_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    put_into_cache(tmp_path, "google-t5/t5-base", t5_folder)
    family, stored = stored_family("t5-base")
    assert family.shape(stored).d_model == 16


@pytest.mark.parametrize("revision", [None, "0" * 40])
def test_nothing_is_known_of_what_is_not_on_this_machine(revision):
    assert stored_family("nobody/nothing", revision) is None


def test_another_type_is_refused_in_the_words_of_what_loads_it(tmp_path):
    folder = save_tiny_gpt2(tmp_path)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "model_type": "opt"}))
    expected = "is of type 'opt', expected one of t5, gpt2, llama"
    with pytest.raises(ConfigError, match=expected) as early:
        stored_family(str(folder))
    with pytest.raises(ConfigError, match=expected) as late:
        load_backbone(str(folder))
    assert str(early.value) == str(late.value)
