"""Beside the released LST code: the same Fisher information, the same rows kept, the same logits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration

from dept_vl.training.calibration import SquaredGradients
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.lst.pruning import by_magnitude, by_squared_gradient, prune
from tests.tuners.adapted import S, logits, make, settings

GOLDENS = Path(__file__).parent / "goldens"
ENCODER_LAYERS, DECODER_LAYERS = (1, 2), (0, 2)


def read(file):
    """Returns tensors by their group, the part of the name before the first dot."""
    groups = {}
    for name, value in load_file(GOLDENS / file).items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    return groups


@pytest.fixture(scope="module")
def goldens():
    return read("lst.safetensors")


@pytest.fixture(scope="module")
def folder(goldens, save_tiny_t5, tmp_path_factory):
    """The goldens' T5 with a tokenizer."""
    path = save_tiny_t5(tmp_path_factory.mktemp("released-lst"))
    config = T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_decoder_layers=3, num_heads=2,
        relative_attention_num_buckets=8, dropout_rate=0.1, decoder_start_token_id=0,
    )  # fmt: skip
    t5 = T5ForConditionalGeneration(config)
    t5.load_state_dict(goldens["t5"])
    t5.save_pretrained(path)
    return path


def model_of(folder, **own):
    tuner = settings("lst", reduction=2, encoder_layers=ENCODER_LAYERS, decoder_layers=DECODER_LAYERS, **own)
    return make(folder, tuner, feature_dim=None)


def our_name(theirs):
    """The name that a tensor of their model has in our network."""
    name = theirs.replace("side_block.", "blocks.").replace("side_first_downsample", "down_input")
    name = name.replace("side_downsamples.", "down.").replace("final_side_layer_norm", "norm")
    return name.replace("side_final_upsample", "up")


def test_squared_gradients_are_those_of_their_fisher_code(folder, goldens):
    model = model_of(folder)
    context = model.backbone.tuner_context(S)
    names = model.tuner.calibrated_parameters(context)
    with SquaredGradients(model.backbone, names) as found:
        for number in range(12):
            row = {key: goldens["rows"][f"{number}.{key}"] for key in ("input_ids", "labels")}
            found.add(row["input_ids"], torch.ones_like(row["input_ids"]), row["labels"])
    theirs = goldens["squares"]
    assert set(names) <= set(theirs)
    for name in names:
        torch.testing.assert_close(found.sums[name], theirs[name], rtol=1e-3, atol=1e-7 * theirs[name].max().item())


@pytest.mark.parametrize("kind", ["fisher", "magnitude"])
def test_the_rows_kept_are_theirs(folder, goldens, kind):
    context = model_of(folder, init="random").backbone.tuner_context(S)
    importance = by_magnitude if kind == "magnitude" else by_squared_gradient(goldens["squares"])
    kept = {context.sites[site].weight: value for site, value in prune(context, 2, importance)}
    assert kept.keys() == {name for name in goldens[kind] if "relative_attention_bias" not in name}
    for name, value in kept.items():
        assert torch.equal(value, goldens[kind][name]), name


def test_calibration_puts_them_into_the_side_blocks(folder, goldens):
    model = model_of(folder)
    model.tuner.calibrate(model.backbone.tuner_context(S), goldens["squares"])
    state = model.tuner.network.state_dict()
    checked = 0
    for theirs, value in goldens["side"].items():
        if "side_block" in theirs or "layer_norm" in theirs:
            assert torch.equal(state[our_name(theirs)], value), theirs
            checked += 1
    assert checked == len([name for name in state if "block" in name or "norm" in name])


def load_side(model, theirs):
    """Copies the tensors of their side network into ours."""
    state = {our_name(name): value for name, value in theirs.items() if "gate" not in name}
    for stack in ("encoder", "decoder"):
        state[f"{stack}.gates"] = torch.cat([theirs[f"{stack}.side_gate_params.{i}"] for i in range(3)])
    model.tuner.network.load_state_dict(state)


def test_logits_are_theirs(folder, goldens):
    model = model_of(folder)
    load_side(model, goldens["side"])
    ids, labels, expected = (goldens[key][""] for key in ("ids", "labels", "logits"))
    ours = logits(model, (ids, (ids != 0).long(), labels))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_logits_with_visual_tokens_are_those_of_their_clip_t5(folder):
    goldens = read("clip_t5.safetensors")
    tuner = settings("lst", reduction=2)
    model = make(folder, tuner, feature_dim=None)
    load_side(model, goldens["side"])
    ids, labels, visual, expected = (goldens[key][""] for key in ("ids", "labels", "visual", "logits"))
    mask, backbone = (ids != 0).long(), model.backbone
    info = ForwardInfo(mask, 0, num_visual_tokens=visual.shape[1])
    with torch.no_grad(), backbone.hooked({}, info, {}, model.tuner.side_network()):
        ours = backbone.logits(backbone.join(backbone.embed_tokens(ids), visual, mask), labels)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
