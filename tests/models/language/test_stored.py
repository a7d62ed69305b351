"""A backbone's files: where they lie, what they are called, and what is refused without reading weights."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

from dept_vl.errors import ConfigError
from dept_vl.models.adapter.identity import backbone_identity
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import load_backbone
from dept_vl.models.language.stored import check_files, find_folder, other_name, recorded_name, resolve, tensor_names
from dept_vl.tuners import PromptTuningConfig
from tests.models.language.hub_cache import COMMIT, put_into_cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache in the place of the user's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "t5")


@pytest.mark.parametrize(
    ("old", "new"),
    [("t5-base", "google-t5/t5-base"), ("gpt2", "openai-community/gpt2"), ("distilgpt2", "distilbert/distilgpt2")],
)
def test_the_first_hub_ids_have_another(old, new):
    assert (other_name(old), other_name(new)) == (new, old)
    assert other_name("google/t5-v1_1-base") is None


@pytest.mark.parametrize(("cached", "asked"), [("t5-small", "google-t5/t5-small"), ("google-t5/t5-small", "t5-small")])
def test_a_model_is_found_under_its_other_hub_id(cache, t5_folder, tmp_path, cached, asked):
    snapshot = put_into_cache(cache, cached, t5_folder)
    assert resolve(asked) == resolve(cached) == cached
    assert find_folder(asked) == snapshot
    tuner, sizes = PromptTuningConfig(num_virtual_tokens=2), {"max_source_length": 8, "feature_dim": None, "seed": 0}
    model, _ = build_model(ModelConfig(backbone=cached), tuner, **sizes)
    model.save_pretrained(tmp_path / "run")
    again, _ = load_model(tmp_path / "run", ModelConfig(backbone=asked))
    assert again.adapter_config().backbone.name == asked
    assert torch.equal(again.tuner.soft_prompt, model.tuner.soft_prompt)


def test_the_id_asked_for_is_taken_where_both_are_there(cache, t5_folder):
    for name in ("t5-small", "google-t5/t5-small"):
        put_into_cache(cache, name, t5_folder)
    assert (resolve("t5-small"), resolve("google-t5/t5-small")) == ("t5-small", "google-t5/t5-small")


def test_a_snapshot_folder_is_recorded_by_its_hub_id_and_commit(cache, t5_folder, tmp_path):
    snapshot = put_into_cache(cache, "google/flan-t5-small", t5_folder)
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    for given in (str(snapshot), f"{snapshot}/", str(link), "google/flan-t5-small"):
        assert recorded_name(given) == ("google/flan-t5-small", COMMIT)
    identity = backbone_identity(load_backbone(str(snapshot))[0], str(snapshot))
    assert (identity.name, identity.revision) == ("google/flan-t5-small", COMMIT)
    assert load_backbone(identity.name, identity.revision)[0].weights_sha256 == identity.weights_sha256


def test_another_folder_is_recorded_by_a_path_that_loads_from_anywhere(t5_folder, tmp_path, monkeypatch):
    copied(t5_folder, tmp_path)
    monkeypatch.chdir(tmp_path)
    name, revision = recorded_name("t5")
    assert (name, revision) == (str(tmp_path / "t5"), None)
    monkeypatch.chdir("/")
    assert load_backbone(name)[0].d_model == 16


def test_a_folder_below_the_users_home_says_nothing_of_who_that_is(t5_folder, tmp_path, monkeypatch):
    copied(t5_folder, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert recorded_name(str(tmp_path / "t5")) == ("~/t5", None)
    assert load_backbone("~/t5")[0].d_model == 16


def test_the_demo_and_what_is_nowhere_keep_their_names(cache):
    assert recorded_name("demo") == ("demo", None)
    assert recorded_name("t5-base") == ("t5-base", None)
    assert recorded_name("t5-base", "v1") == ("t5-base", "v1")


def test_names_of_tensors_are_read_from_headers_and_from_an_index(t5_folder, tmp_path):
    names = set(load_file(t5_folder / "model.safetensors"))
    assert tensor_names(t5_folder) == names
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert tensor_names(tmp_path) == names


def _without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def _without_vocabulary(folder):
    (folder / "tokenizer.json").unlink()


def _larger_tokenizer(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))


def _pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _pickled_shards(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin.index.json")


def _gguf(folder):
    (folder / "model.safetensors").rename(folder / "model.Q4_0.gguf")


def _missing_shard(folder):
    index = {"weight_map": {"shared.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shard_elsewhere(folder):
    _missing_shard(folder)
    index = {"weight_map": {"shared.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


BAD = {
    "no tokenizer": (_without_tokenizer, r"no tokenizer there \(none of tokenizer\.json, spiece\.model"),
    "no vocabulary": (_without_vocabulary, r"no tokenizer there"),
    "larger tokenizer": (_larger_tokenizer, r"has 28 tokens, the model 20 word embeddings \(they do not belong"),
    "pickle": (_pickled, r"safetensors.*pytorch_model\.bin is a pickle.*`dept-vl convert \S+ --out FOLDER`"),
    "shards of pickles": (_pickled_shards, r"pytorch_model\.bin\.index\.json is a pickle.*`dept-vl convert "),
    "gguf": (_gguf, r"model\.Q4_0\.gguf is GGUF.*`dept-vl convert \S+/model\.Q4_0\.gguf --out FOLDER`"),
    "a shard is missing": (_missing_shard, r"names model-00001-of-00002\.safetensors, which is not there"),
    "a shard elsewhere": (_shard_elsewhere, r'names the file "\.\./model\.safetensors", expected one beside it'),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json: no such file"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), r"expected an object of settings"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("look", [check_files, load_backbone])
def test_files_that_do_not_do_are_refused_before_weights_are_read(t5_folder, tmp_path, spoil, message, look):
    folder = copied(t5_folder, tmp_path)
    spoil(folder)
    with pytest.raises(ConfigError, match=r"^model\.backbone: .*" + message):
        look(str(folder))


def test_a_cached_model_of_pickles_is_refused_offline_with_the_folder_to_convert(cache, t5_folder, tmp_path):
    folder = copied(t5_folder, tmp_path)
    _pickled(folder)
    snapshot = put_into_cache(cache, "google/t5-v1_1-small", folder)
    with pytest.raises(ConfigError, match=rf"`dept-vl convert {snapshot} --out FOLDER`"):
        load_backbone("google/t5-v1_1-small")


def test_a_file_or_a_path_that_is_not_there_is_not_taken_for_a_hub_id(t5_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"it is a file, expected a folder .*dept-vl convert \S+/config\.json"):
        resolve(str(t5_folder / "config.json"))
    with pytest.raises(ConfigError, match=r"cannot load '\./nowhere': no such folder"):
        resolve("./nowhere")
    with pytest.raises(ConfigError, match=r"no such folder"):
        resolve(str(tmp_path / "nowhere"))
