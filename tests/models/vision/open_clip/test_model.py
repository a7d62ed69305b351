"""Grid features against the towers' own forward, and what loading refuses."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from dept_vl.errors import ConfigError
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.models.vision.open_clip.model import OpenClipEncoder
from dept_vl.models.vision.open_clip.weights import ClipTower
from tests.models.vision.open_clip.folders import RESNET, TIMM, VIT, save_clip


def reference(folder: Path) -> torch.nn.Module:
    """Returns the same model loaded by open_clip itself."""
    return open_clip.create_model(f"local-dir:{folder}").eval()


def config(folder: Path, **changes) -> OpenClipConfig:
    return OpenClipConfig(**{"model": str(folder), "pooled_grid": None, "dtype": "float32", **changes})


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny-resnet", RESNET)


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny-vit", VIT, quick_gelu=True)


def test_resnet_features_are_what_the_attention_pool_receives(resnet):
    encoder, model = config(resnet).load(), reference(resnet)
    pixels = torch.randn(3, 3, 64, 64)
    seen = []
    hook = model.visual.attnpool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.encode_image(pixels)
    hook.remove()
    features = encoder(pixels)
    assert features.shape == (3, 4, 256)
    assert (encoder.num_visual_tokens, encoder.feature_dim) == (4, 256)
    for row in range(2):
        for column in range(2):
            assert_close(features[:, row * 2 + column], seen[0][:, :, row, column], rtol=1e-6, atol=1e-6)


def test_resnet_grid_through_the_towers_own_pooling_gives_its_image_vector(resnet):
    encoder, model = config(resnet).load(), reference(resnet)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        grid = encoder(pixels).transpose(1, 2).reshape(2, 256, 2, 2)
        assert_close(model.visual.attnpool(grid), model.encode_image(pixels), rtol=1e-5, atol=1e-5)


def test_vit_features_are_the_last_layers_patch_tokens_after_the_final_norm(vit):
    encoder, model = config(vit).load(), reference(vit)
    pixels = torch.randn(2, 3, 32, 32)
    last = []
    hook = model.visual.transformer.resblocks[-1].register_forward_hook(lambda m, i, output: last.append(output))
    with torch.no_grad():
        model.encode_image(pixels)
        hook.remove()
        normed = model.visual.ln_post(last[0])
        features = encoder(pixels)
        assert features.shape == (2, 16, 32)
        assert_close(features, normed[:, 1:], rtol=1e-5, atol=1e-5)
        assert_close(normed[:, 0] @ model.visual.proj, model.encode_image(pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "prefix", "side"), [("test_vit", 1, 10), ("test_convnext", 0, 5), ("test_efficientnet", 0, 5)]
)
def test_features_of_a_timm_tower_are_what_its_trunk_pools(tmp_path, architecture, prefix, side):
    pool = "token" if architecture == "test_vit" else "avg"
    folder = save_clip(tmp_path / "clip", {**TIMM, "timm_model_name": architecture, "timm_pool": pool}, mean=[0.5] * 3)
    encoder, model = config(folder).load(), reference(folder)
    pixels = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        features = encoder(pixels)
        trunk = model.visual.trunk.forward_features(pixels)
        assert_close(model.visual.head(model.visual.trunk.forward_head(trunk)), model.encode_image(pixels))
    expected = trunk[:, prefix:] if trunk.ndim == 3 else trunk.flatten(2).transpose(1, 2)
    assert_close(features, expected, rtol=0, atol=0)
    assert features.shape == (1, side * side, config(folder).feature_dim())
    assert encoder.fingerprint["architecture"] == architecture
    assert encoder.fingerprint["preprocessing_details"]["mean"] == [0.5] * 3
    assert "activation" not in encoder.fingerprint


def test_widths_of_named_towers_are_known_without_weights():
    widths = {"RN101": 2048, "ViT-B-32": 768, "ViT-B-16-SigLIP2": 768, "convnext_base": 1024, "PE-Core-B-16": 768}
    assert {name: OpenClipConfig(model=name).feature_dim() for name in widths} == widths


def test_a_timm_tower_that_timm_does_not_know_is_refused(tmp_path):
    folder = save_clip(tmp_path / "clip", TIMM)
    described = json.loads((folder / "open_clip_config.json").read_text())
    described["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_of_ours"
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match=r"not an open_clip config .*Unknown model \(vit_of_ours\)"):
        config(folder).load()
    with pytest.raises(ConfigError, match=r"timm cannot build 'vit_of_ours': Unknown model"):
        config(folder).feature_dim()


def test_pooling_takes_the_maximum_of_each_cell(vit):
    plain = config(vit).load()
    pooled = config(vit, pooled_grid=3).load()
    pixels = torch.randn(1, 3, 32, 32)
    grid = plain(pixels).reshape(4, 4, 32)
    features = pooled(pixels)
    assert features.shape == (1, 9, 32)
    bounds = [(0, 2), (1, 3), (2, 4)]  # floor(i * 4 / 3) to ceil((i + 1) * 4 / 3)
    for row, (top, bottom) in enumerate(bounds):
        for column, (left, right) in enumerate(bounds):
            expected = grid[top:bottom, left:right].amax((0, 1))
            assert_close(features[0, row * 3 + column], expected, rtol=0, atol=0)


def test_rn101_gives_36_tokens_of_2048():
    with torch.device("meta"):  # built there, the random initialisation costs nothing
        tower = open_clip.CLIP(**open_clip.get_model_config("RN101")).visual
    tower = ClipTower(tower.to_empty(device="cpu"), PreprocessCfg())
    encoder = OpenClipEncoder(OpenClipConfig(pooled_grid=6), tower)
    assert (encoder.num_visual_tokens, encoder.feature_dim) == (36, 2048)
    seen = []
    tower.module.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 36, 2048)
    assert seen == [(1, 2048, 7, 7)]


def test_frozen_and_in_evaluation_mode_whatever_the_caller_does(resnet):
    encoder = config(resnet).load()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    with torch.enable_grad():
        features = encoder(torch.randn(2, 3, 64, 64))
    assert not encoder.training
    assert not encoder.network.training
    assert not features.requires_grad
    assert all(not parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_features_are_rounded_to_the_cache_dtype_and_ignore_autocast(resnet):
    pixels = torch.randn(1, 3, 64, 64)  # one: float32 features are computed an image at a time
    exact = config(resnet).load()(pixels)
    encoder = config(resnet, dtype="float16").load()
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(pixels)
    assert features.dtype == torch.float32
    assert torch.equal(features, exact.half().float())


def test_preprocessing_clip_crops_and_resize_squashes(resnet, tmp_path):
    image = Image.new("RGB", (120, 60))
    image.paste((255, 255, 255), (0, 0, 30, 60))  # the left quarter: outside the central square
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    cropped = config(resnet, preprocessing="clip").load().preprocess(image)
    squashed = config(resnet, preprocessing="resize").load().preprocess(image)
    assert cropped.shape == squashed.shape == (3, 64, 64)
    black, white = -mean / std, (1 - mean) / std
    assert_close(cropped[:, 32, 4], black, rtol=1e-4, atol=1e-4)
    assert_close(squashed[:, 32, 4], white, rtol=1e-4, atol=1e-4)
    by_hand = image.resize((64, 64), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(by_hand)).permute(2, 0, 1) / 255
    assert_close(squashed, (values - mean[:, None, None]) / std[:, None, None], rtol=1e-5, atol=1e-5)


def test_the_folders_own_preprocessing_is_used(tmp_path):
    folder = save_clip(tmp_path / "own", VIT, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], interpolation="bilinear")
    encoder = config(folder, preprocessing="clip").load()
    details = encoder.fingerprint["preprocessing_details"]
    assert (details["mean"], details["std"], details["interpolation"]) == ([0.5] * 3, [0.25] * 3, "bilinear")
    assert details["size"] == [32, 32]
    assert_close(encoder.preprocess(Image.new("RGB", (40, 50), (255, 0, 0)))[:, 3, 3], torch.tensor([2.0, -2.0, -2.0]))


def test_fingerprint_tells_what_matters_apart(resnet, vit, tmp_path):
    base = config(vit).load().fingerprint
    assert json.loads(json.dumps(base)) == base
    assert base["activation"] == "quick_gelu"
    assert base["model"] == "tiny-vit"
    assert base["pretrained"] is None
    assert config(resnet).load().fingerprint["activation"] == "relu"
    plain_gelu = config(save_clip(tmp_path / "tiny-vit", VIT)).load().fingerprint
    assert plain_gelu["activation"] == "gelu"
    assert {k for k in base if base[k] != plain_gelu[k]} == {"activation"}
    for change in ({"pooled_grid": 2}, {"dtype": "bfloat16"}, {"preprocessing": "clip"}):
        assert config(vit, **change).load().fingerprint != base
    assert config(vit).known_fingerprint().items() <= base.items()


def test_weights_hash_follows_the_tensors_not_the_file(vit, tmp_path):
    whole = config(vit).load().fingerprint
    tower_only = save_clip(tmp_path / "tiny-vit", VIT, quick_gelu=True, only_visual=True)
    assert config(tower_only).load().fingerprint == whole
    state = load_file(tower_only / "open_clip_model.safetensors")
    state["visual.proj"][0, 0] += 1
    save_file(state, tower_only / "open_clip_model.safetensors")
    assert config(tower_only).load().fingerprint["weights_sha256"] != whole["weights_sha256"]


def test_openai_tags_get_quick_gelu(monkeypatch, vit):
    """The trap: open_clip builds plain GELU for ViT-B-32 + openai, with a warning only."""
    asked = {}

    def create_model(name, **options):
        asked.update(name=name, **options)
        return reference_model

    reference_model = reference(vit)
    monkeypatch.setattr(open_clip, "create_model", create_model)
    OpenClipConfig(model="ViT-B-32", pretrained="openai", pooled_grid=None).load()
    assert asked["force_quick_gelu"] is True
    assert asked["require_pretrained"] is True
    OpenClipConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k", pooled_grid=None).load()
    assert asked["force_quick_gelu"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "RN1001"}, r"unknown open_clip model 'RN1001'; did you mean 'RN101'"),
        ({"model": "RN101", "pretrained": "openia"}, r"RN101 has no weights called 'openia'; did you mean 'openai'"),
        ({"model": "RN101", "pretrained": None}, r"RN101 needs a weight tag such as 'openai', got null"),
    ],
)
def test_unknown_models_and_weights_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        OpenClipConfig(**changes).load()


def test_a_weight_file_without_its_config_is_refused(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(ConfigError, match="says neither preprocessing nor activation"):
        OpenClipConfig(model="RN101", pretrained=str(file)).load()


def test_incomplete_folders_are_named(tmp_path, vit):
    folder = tmp_path / "clip"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"open_clip_config.json: no such file"):
        config(folder).load()
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"not an open_clip config"):
        config(folder).load()
    (folder / "open_clip_config.json").write_bytes((vit / "open_clip_config.json").read_bytes())
    with pytest.raises(ConfigError, match=r"no weights; expected one of open_clip_model.safetensors"):
        config(folder).load()
    whole = (vit / "open_clip_model.safetensors").read_bytes()
    (folder / "open_clip_model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match=r"not a complete safetensors file"):
        config(folder).load()


def test_folders_of_other_libraries_name_their_kinds(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(ConfigError, match=r"open_clip_config\.json: no such file; .*kinds timm and transformers read"):
        config(tmp_path).check_files()


def test_weights_of_another_shape_are_refused(tmp_path, resnet):
    folder = save_clip(tmp_path / "clip", VIT)
    (folder / "open_clip_model.safetensors").write_bytes((resnet / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"does not fit the image tower .* tensors missing .* unknown"):
        config(folder).load()


def test_pooling_beyond_the_grid_is_refused(resnet):
    with pytest.raises(ConfigError, match=r"pooled_grid: 6 is more than the 2 x 2 grid of .*; choose at most 2"):
        config(resnet, pooled_grid=6).load()


def test_towers_without_a_grid_are_refused(tmp_path):
    folder = save_clip(tmp_path / "coca", {**VIT, "attentional_pool": True, "attn_pooler_heads": 2})
    with pytest.raises(ConfigError, match="an image tower without grid features"):
        config(folder).load()
