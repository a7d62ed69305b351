"""LST's own laws: the frozen T5 at r = 1, the backbone left out at gates of 1, no gradient through it, its cost."""

import pytest
import torch

from dept_vl.errors import ConfigError
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.load import load_backbone
from dept_vl.models.meta_model import build_meta_model
from dept_vl.settings.load import load_config
from tests.tuners.adapted import FEATURE_DIM, S, batch, logits, make, settings

GLUE_LAYERS = (1, 2, 3, 5, 6, 7, 9, 10, 11)
ALWAYS_OPEN = 100.0  # sigmoid(100 / 0.1) is 1.0


def lst(**own):
    return settings("lst", **{"reduction": 2, "init": "magnitude", **own})


@torch.no_grad()
def open_gates(model, value=ALWAYS_OPEN):
    for stack in (model.tuner.network.encoder, model.tuner.network.decoder):
        stack.gates.fill_(value)


@torch.no_grad()
def set_to_identity(model):
    for linear in model.tuner.network.linears():
        linear.weight.copy_(torch.eye(len(linear.weight)))
        linear.bias.zero_()


@pytest.mark.parametrize("bias", ["zero", "sequential"])
@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
def test_the_whole_width_with_open_gates_is_the_frozen_model(folders, family, bias):
    frozen = make(
        folders[family],
        settings("dept", budget_tokens=1, num_virtual_tokens=0, rank=0, allow_nearest=True),
        visual_position_bias=bias,
    )
    model = make(folders[family], lst(reduction=1), visual_position_bias=bias)
    set_to_identity(model)
    open_gates(model)
    ids, mask, _, features = batch()
    assert torch.equal(logits(model), logits(frozen))
    trie = LabelTrie.build([[5, 6, 1], [5, 7, 8, 1], [9, 1]])
    assert torch.equal(
        model.score_labels(ids, mask, features, labels=trie), frozen.score_labels(ids, mask, features, labels=trie)
    )
    for beams in (1, 3):
        answers = [one.generate(ids, mask, features, num_beams=beams, max_new_tokens=5) for one in (model, frozen)]
        assert torch.equal(*answers)
    assert torch.equal(model.embed(ids, mask, features), frozen.embed(ids, mask, features))


def shake(backbone):
    with torch.no_grad():
        for stack in (backbone.model.encoder, backbone.model.decoder):
            for parameter in stack.block.parameters():
                parameter.add_(torch.randn_like(parameter))


def test_with_open_gates_the_blocks_of_the_backbone_do_not_matter(folders):
    model = make(folders["t5"], lst(), moved=0.1)
    closed = logits(model)
    open_gates(model)
    before = logits(model)
    shake(model.backbone)
    assert torch.equal(logits(model), before)
    open_gates(model, 0.0)
    assert not torch.allclose(logits(model), closed)


def test_no_graph_goes_through_the_backbone(folders):
    model = make(folders["t5"], lst(), dropout_rate=0.1).train()
    seen, handles = [], []
    for stack in (model.backbone.model.encoder, model.backbone.model.decoder):
        for module in stack.modules():
            if isinstance(module, torch.nn.Linear):
                handles.append(module.register_forward_hook(lambda _module, _inputs, output: seen.append(output)))
    output = model(*batch())
    for handle in handles:
        handle.remove()
    assert len(seen) >= 20
    assert all(tensor.grad_fn is None and not tensor.requires_grad for tensor in seen)
    output.loss_per_example.sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.visual_projection.parameters())


def kept_for_backward(model):
    """Numbers that a forward pass keeps for the backward pass, those of parameters left out."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(*batch(lengths=(12,) * 16, targets=(2,) * 16)).loss_per_example.sum()
    assert loss.requires_grad
    return sum(kept.values())


def test_it_keeps_less_than_half_of_what_lora_keeps_for_the_backward_pass(save_tiny_t5, tmp_path):
    folder = save_tiny_t5(tmp_path, d_model=512, d_ff=2048, d_kv=64, num_heads=8)  # T5-small's widths
    ours = kept_for_backward(make(folder, settings("lst", init="magnitude", reduction=8)).train())
    theirs = kept_for_backward(make(folder, settings("lora", rank=8)).train())
    assert ours < 0.5 * theirs


@pytest.mark.parametrize("with_image", [True, False])
def test_it_equals_a_plain_loop(folders, with_image):
    """T5 written out, its frozen half on the text alone; Down h is zero at visual places."""
    model = make(folders["t5"], lst(encoder_layers=[1], decoder_layers=[0, 1]), moved=0.1)
    ids, mask, labels, features = batch()
    ours = logits(model, (ids, mask, labels, features if with_image else None))
    for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
        image = features[row] if with_image else None
        expected = by_loop(model, ids[row, :length], labels[row, :target], image)
        torch.testing.assert_close(ours[row, :target], expected, rtol=1e-4, atol=2e-5)


def attend(attention, normed, states, bias):
    heads = []
    width = attention.key_value_proj_dim
    for head in range(attention.n_heads):
        rows = slice(width * head, width * (head + 1))
        query = normed @ attention.q.weight[rows].T
        key, value = states @ attention.k.weight[rows].T, states @ attention.v.weight[rows].T
        heads.append(torch.softmax(query @ key.T + bias[head], dim=-1) @ value)
    return torch.cat(heads, dim=1) @ attention.o.weight.T


def run_block(block, hidden, bias, states=None):
    first = block.layer[0]
    normed = first.layer_norm(hidden)
    hidden = hidden + attend(first.SelfAttention, normed, normed, bias)
    if states is not None:
        cross = block.layer[1]
        none = torch.zeros(cross.EncDecAttention.n_heads, len(hidden), len(states))
        hidden = hidden + attend(cross.EncDecAttention, cross.layer_norm(hidden), states, none)
    return block.layer[-1](hidden)


def bias_of(block, length, visual, causal):
    attention = block.layer[0].SelfAttention
    bias = torch.zeros(attention.n_heads, length + visual, length + visual)
    bias[:, :length, :length] = attention.compute_bias(length, length)[0]
    return bias.masked_fill(torch.ones(length + visual, length + visual).triu(1).bool(), -torch.inf) if causal else bias


@torch.no_grad()
def by_loop(model, ids, labels, image):
    t5, network = model.backbone.model, model.tuner.network
    words = t5.shared.weight
    side_input = words[ids]
    if image is not None:
        visual = model.visual_projection(image[None], words)[0]
        side_input = torch.cat([side_input, visual])
    target_input = words[torch.cat([torch.zeros(1, dtype=torch.long), labels[:-1]])]
    states = None
    for name, frozen_input, own_input in (
        ("encoder", words[ids], side_input),
        ("decoder", target_input, target_input),
    ):
        stack, own = getattr(t5, name), getattr(network, name)
        frozen_states, side_states = states or (None, None)
        first = own.blocks[str(own.layers[0])]
        frozen_bias = bias_of(stack.block[0], len(frozen_input), 0, name == "decoder")
        side_bias = bias_of(first, len(frozen_input), len(own_input) - len(frozen_input), name == "decoder")
        wide, side = frozen_input, own.down_input(own_input)
        for layer, block in enumerate(stack.block):
            wide = run_block(block, wide, frozen_bias, frozen_states)
            if layer in own.layers:
                gate = 1 / (1 + torch.exp(-own.gates[layer] / 0.1))
                read = torch.zeros_like(side)
                read[: len(wide)] = own.down[str(layer)](wide)
                side = run_block(own.blocks[str(layer)], gate * side + (1 - gate) * read, side_bias, side_states)
        states = stack.final_layer_norm(wide), own.norm(side)
    return t5.lm_head(network.up(states[1]) * words.shape[1] ** -0.5)


def test_the_frozen_encoder_reads_no_image(folders):
    model = make(folders["t5"], lst())
    ids, mask, _, features = batch()
    with model.answering(ids, mask, features) as joint:
        states = model.backbone.encode(joint)
        assert joint.beside.inputs_embeds.shape[1] == ids.shape[1] + features.shape[1]
    with model.answering(ids, mask, features + 1) as joint:
        assert torch.equal(model.backbone.encode(joint), states)
    assert states.shape[:2] == ids.shape
    assert not torch.allclose(model.embed(ids, mask, features), model.embed(ids, mask, features + 1))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_new_token_costs_one_step_of_the_network(folders, beams):
    model = make(folders["t5"], lst())
    widths = []
    block = model.tuner.network.decoder.blocks["0"]
    handle = block.register_forward_hook(lambda _block, inputs, _output: widths.append(tuple(inputs[0].shape[:2])))
    ids, mask, _, features = batch()
    generated = model.generate(ids, mask, features, num_beams=beams, max_new_tokens=5)
    handle.remove()
    assert widths == [(3 * beams, 1)] * generated.shape[1]


def test_a_backbone_in_bfloat16_has_a_network_in_float32(folders):
    model = make(folders["t5"], lst(), dtype="bfloat16", dropout_rate=0.0).train()
    ids, mask, labels, features = batch()
    output = model(ids, mask, labels, features)
    output.loss_per_example.mean().backward()
    for name, parameter in model.tuner.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None, name
    exact = make(folders["t5"], lst(), dropout_rate=0.0)
    torch.testing.assert_close(output.logits.float(), logits(exact), rtol=0.1, atol=0.1)
    model.generate(ids, mask, features, num_beams=2, max_new_tokens=3)


@pytest.mark.parametrize(
    ("own", "feature_dim", "count"),
    [
        ({"encoder_layers": GLUE_LAYERS, "decoder_layers": GLUE_LAYERS}, None, 3_878_712),
        ({"reduction": 4}, None, 16_386_072),
        ({"reduction": 4}, 2048, 16_386_072),
    ],
    ids=["GLUE", "CLIP-T5 text", "CLIP-T5"],
)
def test_counts_on_t5_base_are_those_of_the_released_code(own, feature_dim, count):
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("lst", **own), max_source_length=128, feature_dim=feature_dim
    )
    assert model.parameter_budget().tuner == count
    assert model.parameter_budget().groups["side_network"] == count


def test_layers_may_differ_in_the_stacks(folders):
    model = make(folders["t5"], lst(encoder_layers=[0], decoder_layers=[1]))
    assert model.tuner.facts() == {"r": 2, "encoder_blocks": 1, "decoder_blocks": 1}
    network = model.tuner.network
    for stack, layer in ((network.encoder, "0"), (network.decoder, "1")):
        assert list(stack.blocks) == [layer]
        assert stack.blocks[layer].layer[0].SelfAttention.has_relative_attention_bias
    ids, mask, _, features = batch()
    model.generate(ids, mask, features, num_beams=2, max_new_tokens=3)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"reduction": 3}, r"tuner.reduction: 3 does not divide .*d_model 16, d_kv 8, d_ff 24.*take one of 1, 2, 4, 8"),
        ({"encoder_layers": [0, 7]}, r"tuner.encoder_layers: .*encoder has the blocks 0 to 1, and no 7"),
        ({"decoder_layers": [2, 3]}, r"tuner.decoder_layers: .*decoder has the blocks 0 to 1, and no 2, 3"),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused(folders, own, message):
    with pytest.raises(ConfigError, match=message):
        make(folders["t5"], lst(**own))


@pytest.mark.parametrize("layers", [[], [1, 0], [1, 1], [-1]])
def test_a_list_of_layers_that_makes_no_sense_is_refused(layers):
    with pytest.raises(ConfigError, match=r"tuner.encoder_layers"):
        lst(encoder_layers=layers)


@pytest.mark.parametrize("name", ["lst+lora", "dept+lst"])
def test_nothing_is_stacked_on_a_backbone_without_gradients(name):
    with pytest.raises(ConfigError, match=r"'lst' runs the backbone without gradients.*name 'lst' alone"):
        load_config(None, {"tuner.name": name})


def test_two_side_networks_are_refused():
    with pytest.raises(ConfigError, match=r"'lst\+lst' names 'lst' twice"):
        load_config(None, {"tuner.name": "lst+lst"})
    parts = {"one": {"name": "lst"}, "other": {"name": "lst"}}
    with pytest.raises(ConfigError, match=r"'one' runs the backbone without gradients.*name 'lst' alone"):
        load_config(None, {"tuner.name": "stack", "tuner.parts": parts})


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
def test_the_start_at_random_has_the_spread_of_a_t5_of_its_widths(save_tiny_t5, tmp_path, family):
    folder = save_tiny_t5(tmp_path, d_model=64, gated=family == "t5-v1.1")
    state = torch.random.get_rng_state()
    model = make(folder, lst(init="random"))
    assert torch.equal(torch.random.get_rng_state(), state)
    network = model.tuner.network
    narrow = model.backbone.narrow_blocks()
    width, d_kv, d_ff = 32, 4, 12
    stds = {"q": (width * d_kv) ** -0.5, "k": width**-0.5, "v": width**-0.5, "o": (2 * d_kv) ** -0.5}
    stds |= {"in": width**-0.5, "gate": width**-0.5, "out": d_ff**-0.5}
    found = {}
    for stack in (network.encoder, network.decoder):
        assert torch.equal(stack.norm.weight, torch.ones(width))
        for block in stack.blocks.values():
            for part, module in narrow.parts(block).items():
                if part.endswith("norm"):
                    assert torch.equal(module.weight, torch.ones(width))
                else:
                    found.setdefault(part.rpartition(".")[2], []).append(module.weight.flatten())
    assert set(found) == set(stds) - ({"gate"} if family == "t5" else set())
    for part, values in found.items():
        assert torch.cat(values).std().item() == pytest.approx(stds[part], rel=0.15), part


def test_maps_between_the_widths_start_as_asked(folders):
    drawn = make(folders["t5"], lst(init_std=0.5)).tuner.network
    weights = torch.cat([linear.weight.flatten() for linear in drawn.linears()])
    assert weights.std().item() == pytest.approx(0.5, rel=0.1)
    assert all((linear.bias == 0).all() for linear in drawn.linears())
    own = make(folders["t5"], lst(init_std=None)).tuner.network
    for linear in own.linears():
        bound = linear.in_features**-0.5
        assert 0.5 * bound < linear.weight.abs().max() <= bound
        assert linear.bias.abs().max() <= bound
    assert torch.equal(drawn.encoder.gates, torch.zeros(2))


def test_a_seed_decides_the_start(folders):
    one, same, other = (make(folders["t5"], lst(init="random"), seed=seed) for seed in (1, 1, 2))
    state = one.tuner.trainable_state()
    assert all(torch.equal(value, state[key]) for key, value in same.tuner.trainable_state().items())
    assert not torch.equal(other.tuner.network.up.weight, one.tuner.network.up.weight)


def test_its_blocks_attend_as_the_backbone_does(folders):
    for attention in ("eager", "sdpa"):
        backbone, tokenizer = load_backbone(str(folders["t5"]))
        backbone.model.encoder.config._attn_implementation = attention
        model, _ = build_model(
            ModelConfig(), lst(), max_source_length=S, feature_dim=FEATURE_DIM, seed=0, backbone=(backbone, tokenizer)
        )
        block = model.tuner.network.encoder.blocks["0"]
        assert block.layer[0].SelfAttention.config._attn_implementation == attention
        model.eval()
        assert torch.isfinite(logits(model)).all()


def test_recomputed_activations_are_not_kept(save_tiny_t5, tmp_path):
    folder = save_tiny_t5(tmp_path, d_model=128)
    tuner = settings("lst", init="magnitude", reduction=8)
    kept, recomputed = (
        kept_for_backward(make(folder, tuner, gradient_checkpointing=recompute).train()) for recompute in (False, True)
    )
    assert recomputed < 0.9 * kept
