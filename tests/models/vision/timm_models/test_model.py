"""Grid features against timm's own forward and transform, and what loading refuses."""

import json
import pickle
import shutil

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from torch.testing import assert_close

from dept_vl.errors import ConfigError
from dept_vl.models.vision.timm_models.config import TimmConfig
from tests.models.language.hub_cache import put_into_cache
from tests.models.vision.timm_models.folders import SIZES, save_timm

SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
MODELS = {
    "siglip": ("vit_base_patch16_siglip_224", SIZES),
    "dinov3": ("vit_small_patch16_dinov3", SIZES),
    "pe": ("vit_pe_core_tiny_patch16_384", SIZES),
    "convnext": ("test_convnext", {}),
    "efficientnet": ("test_efficientnet", {}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
}
PREFIX = {"siglip": 0, "dinov3": 5, "pe": 1}
SCENE = Image.effect_noise((90, 60), 80).convert("RGB")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("timm")
    return {name: save_timm(root / name, architecture, **sizes) for name, (architecture, sizes) in MODELS.items()}


def config(folder, **changes):
    return TimmConfig(**{"model": str(folder), "pooled_grid": None, "dtype": "float32", **changes})


def reference(folder):
    """Returns the model loaded by timm itself."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize("name", MODELS)
def test_features_and_pixels_are_timms_own(name, folders):
    encoder, model = config(folders[name]).load(), reference(folders[name])
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    pixels = pickle.loads(pickle.dumps(encoder.preprocess))(SCENE)  # as loader processes get it
    assert torch.equal(pixels, transform(SCENE))
    with torch.no_grad():
        expected = model.forward_features(pixels[None])
    if name in PREFIX:
        expected = expected[:, PREFIX[name] :]
    elif name == "swin":
        expected = expected.flatten(1, 2)
    else:
        expected = expected.flatten(2).transpose(1, 2)
    features = encoder(pixels[None])
    assert_close(features, expected, rtol=0, atol=0)
    assert features.shape == (1, encoder.num_visual_tokens, encoder.feature_dim)
    assert encoder.num_visual_tokens == (16 if name in PREFIX else 4)
    assert config(folders[name]).feature_dim() == encoder.feature_dim


def test_a_grid_is_pooled_whether_it_divides_or_not(folders):
    plain = config(folders["dinov3"]).load()
    pixels = plain.preprocess(SCENE)[None]
    grid = plain(pixels).transpose(1, 2).unflatten(2, (4, 4))
    for side in (1, 2, 3, 4):
        pooled = config(folders["dinov3"], pooled_grid=side).load()(pixels)
        expected = torch.nn.functional.adaptive_max_pool2d(grid, side).flatten(2).transpose(1, 2)
        assert torch.equal(pooled, expected)
    with pytest.raises(ConfigError, match=r"pooled_grid: 5 is more than the 4 x 4 grid of .*; choose at most 4"):
        config(folders["dinov3"], pooled_grid=5).load()


def test_own_preprocessing_crops_and_resize_squashes(folders):
    image = Image.new("RGB", (128, 64))
    image.paste((255, 255, 255), (0, 0, 24, 64))  # outside the central square
    cropped = config(folders["siglip"]).load().preprocess(image)
    squashed = config(folders["siglip"], preprocessing="resize").load().preprocess(image)
    assert cropped.shape == squashed.shape == (3, 32, 32)
    details = config(folders["siglip"]).load().fingerprint["preprocessing_details"]
    mean, std = torch.tensor(details["mean"]), torch.tensor(details["std"])
    assert_close(cropped[:, 16, 2], -mean / std)
    assert_close(squashed[:, 16, 2], (1 - mean) / std)


def test_half_and_full_precision_copies_differ_only_where_numbers_do(folders, tmp_path):
    exact, half, full = (shutil.copytree(folders["efficientnet"], tmp_path / n / "tower") for n in ("a", "b", "c"))
    state = load_file(exact / "model.safetensors")
    rounded = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file(rounded, half / "model.safetensors")
    save_file({n: t.float() if t.is_floating_point() else t for n, t in rounded.items()}, full / "model.safetensors")
    fingerprints = {folder: config(folder).load().fingerprint for folder in (exact, half, full)}
    assert fingerprints[half] == fingerprints[full]
    differing = {k for k in fingerprints[half] if fingerprints[half][k] != fingerprints[exact][k]}
    assert differing == {"weights_sha256"}


def test_the_classifier_is_no_part_of_the_fingerprint(folders, tmp_path):
    other = shutil.copytree(folders["efficientnet"], tmp_path / "efficientnet")
    state = load_file(other / "model.safetensors")
    state["classifier.bias"] += 1
    save_file(state, other / "model.safetensors")
    assert config(other).load().fingerprint == config(folders["efficientnet"]).load().fingerprint


def test_arguments_that_weights_do_not_show_are_in_the_fingerprint(tmp_path):
    two = config(save_timm(tmp_path / "a" / "vit", "vit_tiny_patch16_224", **SIZES)).load().fingerprint
    four = config(save_timm(tmp_path / "b" / "vit", "vit_tiny_patch16_224", **{**SIZES, "num_heads": 4})).load()
    assert {key for key in two if two[key] != four.fingerprint[key]} == {"model_args"}


def test_a_model_of_the_hub_is_read_from_the_cache_offline(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    put_into_cache(tmp_path, "timm/test_efficientnet.r160_in1k", folders["efficientnet"])
    local = config(folders["efficientnet"]).load().fingerprint
    named = config("test_efficientnet.r160_in1k", preprocessing="resize")
    assert named.load().fingerprint["weights_sha256"] == local["weights_sha256"]
    assert named.label == "test_efficientnet.r160_in1k"
    given = config("hf-hub:timm/test_efficientnet.r160_in1k").load().fingerprint
    assert {key for key in given if given[key] != local[key]} == {"model"}
    assert config("hf-hub:timm/test_efficientnet.r160_in1k").feature_dim() == local["feature_dim"]
    snapshot = next(tmp_path.glob("models--timm--*/snapshots/*"))
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    for name in ("test_efficientnet.r160_in1k", "hf-hub:timm/test_efficientnet.r160_in1k"):
        with pytest.raises(ConfigError, match=rf"cannot load '{name}'"):  # and the pickle is not taken
            config(name).load()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_base_patch16_siglp_224", r"unknown timm model '\S+'; did you mean 'vit_base_patch16_siglip_224'"),
        ("vit_base_patch16_siglip_224.v2_weblo", r"no weights called 'v2_weblo'; did you mean 'v2_webli'"),
        ("vit_tiny_patch16_224_nowhere/there/it", r"there/it: no such folder"),
        ("local-dir:nowhere", r"nowhere: no such folder"),
        ("resnet18.tv_in1k", r"cannot load 'resnet18.tv_in1k': .*; offline, give a model that the hub's cache holds"),
        ("hf-hub:timm/absent", r"cannot load 'hf-hub:timm/absent': .*; offline, give"),
        ("vit_base_patch16_gap_224", r"the hub has no weights of vit_base_patch16_gap_224; give a folder"),
    ],
)
def test_models_that_cannot_be_had_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        TimmConfig(model=name).load()


def test_a_model_without_forward_features_is_refused(folders, monkeypatch):
    monkeypatch.delattr(timm.models.efficientnet.EfficientNet, "forward_features")
    with pytest.raises(ConfigError, match=r"efficientnet has no forward_features \(EfficientNet\)"):
        config(folders["efficientnet"]).load()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([torch.zeros(1, 16, 32)], "forward_features gives list and not one tensor"),  # as CoaT's do
        (torch.zeros(1, 17, 32), "17 patch tokens fill no grid"),  # as VOLO's do: a class token of which nothing tells
        (torch.zeros(1, 32), "forward_features gives a tensor of 2 dimensions"),
    ],
)
def test_models_without_one_grid_are_refused(features, message, folders, monkeypatch):
    monkeypatch.setattr(timm.models.VisionTransformer, "forward_features", lambda self, x: features)
    with pytest.raises(
        ConfigError, match=rf"siglip gives no grid of features for pictures of 32 x 32 pixels: {message}"
    ):
        config(folders["siglip"]).load()


def test_folders_that_do_not_do_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["siglip"], tmp_path / "tower")
    settings = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()

    def refuse(message):
        with pytest.raises(ConfigError, match=message):
            config(folder).load()

    (folder / "model.safetensors").write_bytes(weights[:-100])
    refuse(r"cannot load '\S+tower'")
    (folder / "model.safetensors").unlink()
    torch.save(load_file(folders["siglip"] / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"no safetensors weights .*pytorch_model\.bin is a pickle, .* is not read"):
        config(folder).check_files()
    refuse(r"pytorch_model\.bin is a pickle")
    (folder / "model.safetensors").write_bytes((folders["efficientnet"] / "model.safetensors").read_bytes())
    refuse(r"cannot load '\S+tower': Error\(s\) in loading state_dict")
    (folder / "config.json").write_text(json.dumps({**settings, "architecture": "vit_of_ours"}))
    refuse(r"cannot load '\S+tower': Unknown model \(vit_of_ours\)")
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    refuse(r"names no timm architecture \(it is of a 'siglip' of transformers\); .*kind transformers reads")
    (folder / "config.json").write_text("[]")
    refuse(r"config\.json: expected an object of settings")
    (folder / "config.json").unlink()
    refuse(r"config\.json: no such file; a folder of kind timm needs it")
    with pytest.raises(ConfigError, match=r"model\.safetensors is a file; give the folder that holds config\.json"):
        config(folder / "model.safetensors").check_files()
