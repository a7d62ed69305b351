"""Grid features against transformers' own forward and image processors, and what loading refuses."""

import json
import pickle
import shutil

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoImageProcessor

from dept_vl.errors import ConfigError
from dept_vl.models.vision.transformers_models.config import TransformersConfig
from tests.models.language.hub_cache import put_into_cache
from tests.models.vision.transformers_models.folders import MODELS, SIZES, save_vision_model, save_whole_siglip

PREFIX = {"siglip": 0, "dinov2": 1, "dinov2-registers": 4, "dinov3": 5, "dinov3-convnext": 1}
SCENE = Image.effect_noise((90, 60), 80).convert("RGB")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vision")
    return {name: save_vision_model(root / name, name) for name in MODELS}


def config(folder, **changes):
    return TransformersConfig(**{"model": str(folder), "pooled_grid": None, "dtype": "float32", **changes})


@pytest.mark.parametrize("name", MODELS)
def test_features_and_pixels_are_transformers_own(name, folders):
    encoder = config(folders[name]).load()
    model = getattr(transformers, MODELS[name][0]).from_pretrained(folders[name]).eval()
    pixels = pickle.loads(pickle.dumps(encoder.preprocess))(SCENE)  # as loader processes get it
    processor = AutoImageProcessor.from_pretrained(folders[name])
    assert torch.equal(pixels, processor(images=SCENE, return_tensors="pt")["pixel_values"][0])
    with torch.no_grad():
        expected = model(pixels[None]).last_hidden_state[:, PREFIX[name] :]
    features = encoder(pixels[None])
    assert_close(features, expected, rtol=0, atol=0)
    assert features.shape == (1, encoder.num_visual_tokens, encoder.feature_dim)
    assert encoder.num_visual_tokens == (4 if name == "dinov3-convnext" else 16)
    assert config(folders[name]).feature_dim() == encoder.feature_dim


def test_a_patch_is_where_the_grid_has_it(folders):
    """A white patch changes the embeddings of its own place most, before attention mixes them: of no layer at all."""
    encoder = config(folders["siglip"]).load()
    encoder.network.encoder.layers = torch.nn.ModuleList()
    black, white = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    white[:, :, 8:16, 24:32] = 1  # row 1, column 3
    changed = (encoder(white) != encoder(black)).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [1 * 4 + 3]


def test_the_vision_tower_is_read_from_a_whole_siglip(tmp_path):
    folder = save_whole_siglip(tmp_path / "siglip")
    encoder = config(folder).load()
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    pixels = encoder.preprocess(SCENE)[None]
    with torch.no_grad():
        assert torch.equal(encoder(pixels), model.vision_model(pixels).last_hidden_state)
    assert config(folder).feature_dim() == encoder.feature_dim == 32


def test_layers_that_the_config_does_not_count_are_refused(tmp_path):
    folder = save_whole_siglip(tmp_path / "siglip")
    settings = json.loads((folder / "config.json").read_text())
    settings["vision_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"have layers that its config\.json does not count: encoder\.layers\.1\."):
        config(folder).load()


def test_own_preprocessing_crops_and_resize_squashes(folders):
    image = Image.new("RGB", (128, 64))
    image.paste((255, 255, 255), (0, 0, 24, 64))  # outside the central square
    own, squash = (config(folders["dinov2"], preprocessing=way).load() for way in ("own", "resize"))
    mean, std = (torch.tensor(own.fingerprint["preprocessing_details"][key]) for key in ("image_mean", "image_std"))
    assert_close(own.preprocess(image)[:, 16, 2], -mean / std, rtol=1e-4, atol=1e-4)
    assert_close(squash.preprocess(image)[:, 16, 2], (1 - mean) / std, rtol=1e-4, atol=1e-4)
    assert own.fingerprint["preprocessing_details"]["crop_size"] == {"height": 32, "width": 32}
    assert squash.fingerprint["preprocessing_details"]["do_center_crop"] is False


@pytest.mark.parametrize("size", [(3, 200), (1, 1), (200, 3), (2, 3)])
def test_small_and_narrow_pictures_have_their_colours(size, folders):
    """A side of 3 pixels is no axis of colours."""
    encoder = config(folders["siglip"]).load()
    pixels = encoder.preprocess(Image.new("RGB", size, (255, 0, 0)))
    assert_close(pixels, torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 32, 32), rtol=1e-5, atol=1e-5)


def test_half_and_full_precision_copies_differ_only_where_numbers_do(folders, tmp_path):
    exact, half, full = (shutil.copytree(folders["dinov3"], tmp_path / n / "tower") for n in ("a", "b", "c"))
    rounded = {name: tensor.half() for name, tensor in load_file(exact / "model.safetensors").items()}
    save_file(rounded, half / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps({**settings, "dtype": "float16"}))
    floats = {name: tensor.float() for name, tensor in rounded.items()}
    save_file(floats, full / "model.safetensors", metadata={"format": "pt"})
    fingerprints = {folder: config(folder).load().fingerprint for folder in (exact, half, full)}
    assert fingerprints[half] == fingerprints[full]
    differing = {k for k in fingerprints[half] if fingerprints[half][k] != fingerprints[exact][k]}
    assert differing == {"weights_sha256"}


def test_what_a_config_says_of_the_computation_is_in_the_fingerprint(folders, tmp_path):
    folder = shutil.copytree(folders["siglip"], tmp_path / "siglip")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_act": "gelu"}))
    ours, theirs = (config(one).load().fingerprint for one in (folder, folders["siglip"]))
    assert {key for key in ours if ours[key] != theirs[key]} == {"computation"}


def test_pooling_beyond_the_grid_is_refused(folders):
    with pytest.raises(ConfigError, match=r"pooled_grid: 6 is more than the 4 x 4 grid of .*; choose at most 4"):
        config(folders["dinov3"], pooled_grid=6).load()


def naflex(folder):
    shape = {key: value for key, value in SIZES.items() if key != "image_size"}
    model_config = transformers.Siglip2VisionConfig(**shape, num_patches=16)
    transformers.Siglip2VisionModel(model_config).save_pretrained(folder)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)


def test_pictures_of_many_sizes_are_refused(tmp_path, folders):
    naflex(tmp_path / "naflex")
    with pytest.raises(ConfigError, match=r"is a NaFlex SigLIP 2, .*such as google/siglip2-base-patch16-224"):
        config(tmp_path / "naflex").check_files()
    folder = shutil.copytree(folders["dinov2"], tmp_path / "dinov2")
    transformers.BitImageProcessor(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"\(BitImageProcessor\) makes pictures of no fixed size \(\(3, 32, 42\) and"):
        config(folder).load()


def test_an_image_processor_of_another_model_is_refused(tmp_path, folders):
    folder = shutil.copytree(folders["siglip"], tmp_path / "siglip")
    transformers.SiglipImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"no grid of features for the pictures of 48 x 48 pixels"):
        config(folder).load()


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("t5", r"is a 't5', no vision model that is read here \(known: siglip, .*dinov3_vit"),
        ("dinov3", r"no vision model that is read here; did you mean 'dinov2' or 'dinov3_vit'"),
        ("clip", r"is a 'clip', .*; kind open-clip reads CLIP"),
        (None, r"is a None, no vision model"),
    ],
)
def test_folders_of_other_models_are_refused(model_type, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError, match=message):
        config(tmp_path).check_files()


def test_folders_that_do_not_do_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["dinov3"], tmp_path / "tower")
    weights, settings = (folder / "model.safetensors").read_bytes(), json.loads((folder / "config.json").read_text())

    def refuse(message):
        with pytest.raises(ConfigError, match=message):
            config(folder).load()

    (folder / "model.safetensors").write_bytes(weights[:-100])
    refuse(r"cannot load '\S+tower'")
    (folder / "model.safetensors").write_bytes((folders["siglip"] / "model.safetensors").read_bytes())
    refuse(r"do not fill the DINOv3ViTModel that its config\.json describes; missing or of another shape: embeddings")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))
    refuse(r"do not fill the DINOv3ViTModel")
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 1}))
    refuse(r"cannot load '\S+tower': out_features must be a subset of stage_names")
    (folder / "config.json").write_text(json.dumps({**settings, "intermediate_size": 64}))
    refuse(r"missing or of another shape: \S+mlp")
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    refuse(r"describes a 'resnet18' of timm; kind timm reads it")
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"no image processor \(preprocessor_config\.json\) there"):
        config(folder).check_files()
    (folder / "preprocessor_config.json").write_text("{")
    refuse(r"cannot load the image processor of '\S+tower'")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refuse(r"no safetensors weights .*pytorch_model\.bin is a pickle, which may hold code, and is not read")


def test_a_model_of_the_hub_is_read_from_the_cache_offline(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    put_into_cache(tmp_path, "google/siglip2-base-patch16-224", folders["siglip"])
    cached, local = config("google/siglip2-base-patch16-224"), config(folders["siglip"]).load().fingerprint
    found = cached.load().fingerprint
    assert {key for key in found if found[key] != local[key]} == {"model"}
    assert cached.feature_dim() == local["feature_dim"]


def test_a_model_that_is_not_in_the_cache_is_refused():
    with pytest.raises(ConfigError, match=r"cannot load 'google/siglip2-base-patch16-224': .*; offline, give a hub id"):
        TransformersConfig().load()
