"""HyperFormer++ against T5 written out and the formula as a loop, its start, its tasks, and its count on T5-base."""

import pytest
import torch
from torch import nn

from dept_vl.errors import ConfigError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import open_backbone
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.hyperformer.hypernetwork import PARTS
from tests.tuners.adapted import batch, logits, make, settings
from tests.tuners.plain_t5 import TEXT, plain_logits

EIGHT = ("rte", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "cola")
IDS = torch.tensor([2, 0, 1])


def hyperformer(folder, **options):
    return make(folder, settings("hyperformer", bottleneck=3), **{"moved": 0.1, **options})


def test_count_on_t5_base():
    """Two stacks of 2,581,464, eight task embeddings and the norms: 651,382 a task, and not the paper's 638k."""
    built = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("hyperformer"), max_source_length=256, feature_dim=None, tasks=EIGHT
    )
    groups = built.parameter_budget().groups
    assert groups == {"hypernetworks": 2 * 2_581_464 + 8 * 64, "norms": 47_616}
    assert sum(groups.values()) == 5_211_056 == 8 * 651_382


def loop_of(network, task_embedding, layer, place, values):
    """An adapter and its LayerNorm as the paper has them, one place of one task."""
    embedding = torch.cat([task_embedding, network.layer_embeddings[layer], network.place_embeddings[place]])
    first, _, second = network.project
    made = second.weight @ (first.weight @ embedding + first.bias).clamp(min=0) + second.bias
    made = (made - made.mean()) / (made.var(unbiased=False) + 1e-6).sqrt() * network.norm.weight + network.norm.bias
    down, up = network.down(made).reshape(3, 16), network.up(made).reshape(16, 3)
    inner = nn.functional.gelu(values @ down.T + network.down_bias(made), approximate="tanh")
    change = inner @ up.T + network.up_bias(made)
    centred = change - change.mean(-1, keepdim=True)
    normed = centred / (change.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return values + network.scale(made) * normed + network.shift(made)


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
@pytest.mark.parametrize("task", [0, 2])
def test_it_equals_t5_written_out(folders, family, task):
    model = hyperformer(folders[family], feature_dim=None)

    def change(stack, layer, part, values):
        if part not in PARTS:
            return values
        embedding = model.tuner.task_embeddings[task]
        return loop_of(model.tuner.networks[stack], embedding, layer, PARTS.index(part), values)

    ids, mask, labels = TEXT
    expected = plain_logits(model.backbone, ids, labels, change=change)
    with torch.no_grad():
        found = model(ids, mask, labels, task_ids=torch.tensor([task, task])).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        expected, logits(make(folders[family], settings("lora"), feature_dim=None), TEXT), atol=0.1
    )


def test_generators_of_zero_for_the_layer_norms_are_the_frozen_model(folders):
    model = hyperformer(folders["t5"], moved=0.0)
    frozen = logits(make(folders["t5"], settings("lora")))
    assert not torch.allclose(logits(model), frozen, atol=1e-3)  # gamma and beta start as noise
    for network in model.tuner.networks.values():
        for module in (network.scale, network.shift):
            nn.init.zeros_(module.weight)
    assert torch.equal(logits(model), frozen)


def test_first_values_are_drawn_as_said(folders):
    tuner = make(folders["t5"], settings("hyperformer", bottleneck=8), moved=0.0).tuner
    assert tuner.task_embeddings.std().item() == pytest.approx(1.0, abs=0.15)
    networks = list(tuner.networks.values())
    for network in networks:
        assert network.layer_embeddings.std().item() == pytest.approx(1.0, abs=0.25)
        for module in (network.project[0], network.down, network.up, network.scale):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert not module.bias.any()
    assert not torch.equal(networks[0].up.weight, networks[1].up.weight)


def with_tasks(model, task_ids):
    with torch.no_grad():
        return model(*batch(), task_ids).logits


def test_each_row_of_a_mixed_batch_has_its_task_s_adapters(folders):
    model = hyperformer(folders["t5"])
    mixed = with_tasks(model, IDS)
    for row in range(3):
        torch.testing.assert_close(mixed[row], with_tasks(model, IDS[row].repeat(3))[row], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mixed[0], with_tasks(model, torch.zeros(3, dtype=torch.long))[0], atol=1e-2)
    assert torch.equal(logits(model), with_tasks(model, torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_of_mixed_tasks_is_that_of_each_row(folders, num_beams):
    model = hyperformer(folders["t5"])
    ids, mask, _, features = batch()
    found = model.generate(ids, mask, features, IDS, num_beams=num_beams, max_new_tokens=5)
    for row in range(3):
        one = slice(row, row + 1)
        alone = model.generate(ids[one], mask[one], features[one], IDS[one], num_beams=num_beams, max_new_tokens=5)[0]
        assert torch.equal(found[row, : len(alone)], alone)


def test_the_adapters_of_a_pass_are_made_once(folders):
    model = hyperformer(folders["t5"])
    calls = []
    for network in model.tuner.networks.values():
        network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    ids, mask, _, features = batch()
    model.generate(ids, mask, features, num_beams=3, max_new_tokens=6)
    assert calls == [1, 1]  # of one task, whatever the steps and beams
    model.generate(ids, mask, features, IDS, max_new_tokens=6)
    assert calls == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("family", "tasks", "own", "message"),
    [
        ("gpt2", EIGHT, {}, "'hyperformer' acts in an encoder, and the backbone is decoder-only"),
        ("t5", (), {}, "'hyperformer' shares what several tasks have in common, and the run has one task"),
        ("t5", ("rte",), {}, "the run has one task; name several"),
        ("t5", EIGHT, {"reduction": 17}, r"tuner\.reduction: 17 leaves no width"),
    ],
)
def test_what_it_cannot_be_built_for_is_refused(folders, family, tasks, own, message):
    context = open_backbone(ModelConfig(backbone=str(folders[family])))[0].tuner_context(8, tasks=tasks)
    with pytest.raises(ConfigError, match=message):
        settings("hyperformer", **own).empty(context)
