"""CLIP weights as OpenAI, open_clip and transformers publish them become folders that load to the same tower."""

import json
import shutil

import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

from dept_vl.cli import main
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from tests.models.vision.open_clip.folders import RESNET, TEXT, VIT, save_clip

OPENAI_TEXT = {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 2}
OPENAI = {
    "vit": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "resnet": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8},
}


def convert(source, out):
    assert main(["convert", str(source), "--out", str(out)]) == 0
    return OpenClipConfig(model=str(out), pooled_grid=None, dtype="float32")


def openai_state(kind):
    """A random model with the names, types and numbers that OpenAI's archives hold."""
    torch.manual_seed(0)
    model = open_clip.CLIP(16, dict(OPENAI[kind]), dict(OPENAI_TEXT), quick_gelu=True)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        if name.endswith("num_batches_tracked"):
            buffer.fill_(3)
    open_clip.model.convert_weights_to_fp16(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "attn_mask"}
    numbers = {"input_resolution": 32, "context_length": 8, "vocab_size": 32}
    return {**state, **{name: torch.tensor(value) for name, value in numbers.items()}}


class Holder(torch.nn.Module):
    """Modules nested as the names of a state say, to be saved as an archive."""

    def __init__(self, state):
        super().__init__()
        groups = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                groups.setdefault(first, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(first, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(first, tensor)
        for name, below in groups.items():
            self.add_module(name, Holder(below))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore")  # torch.jit is to go some day
@pytest.mark.parametrize("kind", OPENAI)
@pytest.mark.parametrize("form", ["archive", "state"])
def test_openais_files_give_the_tower_that_open_clip_builds_of_them(kind, form, tmp_path, capsys):
    state, path = openai_state(kind), tmp_path / "RN101.pt"
    if form == "archive":
        torch.jit.script(Holder(state)).save(str(path))
    else:
        torch.save(state, path)
    settings = convert(path, tmp_path / "clip")
    assert f"use it with: --model.image_encoder.model {tmp_path / 'clip'}" in capsys.readouterr().out
    written = load_file(tmp_path / "clip" / "open_clip_model.safetensors")
    for name, tensor in written.items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name])
    encoder = settings.load()
    reference = build_model_from_openai_state_dict(dict(state)).float().visual.state_dict()
    own = encoder.network.state_dict()
    assert own.keys() == reference.keys()
    assert all(torch.equal(own[name], reference[name]) for name in own)
    assert encoder.fingerprint["activation"] == ("quick_gelu" if kind == "vit" else "relu")
    details = encoder.fingerprint["preprocessing_details"]
    assert details["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert details["size"] == [OPENAI[kind]["image_size"]] * 2


def test_an_open_clip_folder_of_a_pickle_becomes_one_of_safetensors(tmp_path, capsys):
    whole = save_clip(tmp_path / "whole" / "clip", VIT, quick_gelu=True)
    old = shutil.copytree(whole, tmp_path / "old")
    torch.save(load_file(old / "open_clip_model.safetensors"), old / "open_clip_pytorch_model.bin")
    (old / "open_clip_model.safetensors").unlink()
    assert main(["cache-features", "--verify", str(old)]) == 2  # no store, whatever is in it
    capsys.readouterr()
    with pytest.raises(ValueError, match=rf"open_clip_pytorch_model\.bin is: `dept-vl convert {old} --out FOLDER`"):
        OpenClipConfig(model=str(old)).check_files()
    new = convert(old, tmp_path / "new" / "clip").load()
    assert new.fingerprint == OpenClipConfig(model=str(whole), pooled_grid=None, dtype="float32").load().fingerprint


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_transformers_vit_computes_the_same_under_open_clips_names(tmp_path, pickled, activation):
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8, "hidden_act": activation,
    }  # fmt: skip
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 32,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3]}))
    if pickled:
        torch.save(model.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
        (tmp_path / "theirs" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"this is transformers' CLIP format.*dept-vl convert \S+ --out FOLDER"):
        OpenClipConfig(model=str(tmp_path / "theirs")).check_files()
    encoder = convert(tmp_path / "theirs", tmp_path / "ours").load()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states = model.vision_model(pixels).last_hidden_state
        expected = model.vision_model.post_layernorm(states)[:, 1:]
    assert_close(encoder(pixels), expected, rtol=1e-5, atol=1e-5)
    assert encoder.fingerprint["preprocessing_details"]["mean"] == [0.5, 0.4, 0.3]


def test_weights_that_do_not_say_what_they_are_of_are_refused(tmp_path, capsys):
    model = open_clip.CLIP(16, dict(VIT), dict(TEXT))
    torch.save(model.state_dict(), tmp_path / "epoch_3.pt")
    assert main(["convert", str(tmp_path / "epoch_3.pt"), "--out", str(tmp_path / "clip")]) == 2
    assert "do not say what activation they were trained with" in capsys.readouterr().err
    torch.save({"vocab_size": torch.tensor(3)}, tmp_path / "other.pt")
    assert main(["convert", str(tmp_path / "other.pt"), "--out", str(tmp_path / "clip")]) == 2
    assert "other.pt: not one of OpenAI's CLIP models" in capsys.readouterr().err
    assert not (tmp_path / "clip").exists()


def test_a_weight_file_in_a_models_place_names_the_command(tmp_path):
    (tmp_path / "RN101.pt").write_bytes(b"PK")
    for settings in ({"model": str(tmp_path / "RN101.pt")}, {"pretrained": str(tmp_path / "RN101.pt")}):
        with pytest.raises(ValueError, match=r"RN101\.pt: a weight file alone .*`dept-vl convert \S+ --out FOLDER`"):
            OpenClipConfig(**settings).check_files()


@pytest.mark.parametrize("vision", [RESNET, VIT])
def test_half_and_full_precision_copies_have_one_fingerprint_and_the_same_features(tmp_path, vision):
    half = save_clip(tmp_path / "half" / "clip", vision)
    from safetensors.torch import save_file

    state = load_file(half / "open_clip_model.safetensors")
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    rounded = {name: tensor.half() for name, tensor in state.items()}
    for name in counters:
        state[name] = torch.tensor(70_000)
        rounded[name] = torch.tensor(70_000.0).half()  # infinite there
    full = shutil.copytree(half, tmp_path / "full" / "clip")
    save_file(rounded, half / "open_clip_model.safetensors")
    exact = {name: tensor.float() if name not in counters else state[name] for name, tensor in rounded.items()}
    save_file(exact, full / "open_clip_model.safetensors")
    one, other = (OpenClipConfig(model=str(folder), pooled_grid=None).load() for folder in (half, full))
    assert one.fingerprint == other.fingerprint
    side = vision["image_size"]
    pixels = torch.randn(2, 3, side, side)
    assert torch.equal(one(pixels), other(pixels))
    without = {name: tensor for name, tensor in exact.items() if name not in counters}
    save_file(without, full / "open_clip_model.safetensors")
    assert OpenClipConfig(model=str(full), pooled_grid=None).load().fingerprint == one.fingerprint
