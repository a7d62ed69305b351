"""Adapters against T5 written out and wrapped modules, where they act, how they start, and one for each task."""

import pytest
import torch
from torch import nn

from dept_vl.errors import ConfigError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import open_backbone
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.places.sites import Site
from tests.tuners.adapted import DECODER_ONLY, FAMILIES, TASKS, batch, logits, make, settings
from tests.tuners.plain_t5 import TEXT, plain_logits

EIGHT = ("rte", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "cola")
ALL_SUBLAYERS = ["self_attn.o", "cross_attn.o", "ff.out"]
CLIP_T5 = {"bottleneck": 192, "sites": ALL_SUBLAYERS, "norms": False, "init": "linear"}
FUNCTIONS = {"gelu_new": nn.GELU("tanh"), "gelu": nn.GELU(), "relu": nn.ReLU(), "swish": nn.SiLU(), "tanh": nn.Tanh()}


def context(folder, tasks=()):
    return open_backbone(ModelConfig(backbone=str(folder)))[0].tuner_context(8, tasks=tasks)


@pytest.mark.parametrize(
    ("name", "own", "tasks", "expected"),
    [
        ("adapter", {}, (), 1_855_104),
        ("adapter", {"reduction": 16}, (), 3_625_728),  # Sung et al.'s own row
        ("adapterdrop", {}, (), 1_101_984),
        ("adapter", {"layers": [5, 6, 7, 8, 9, 10, 11]}, (), 1_101_984),
        ("adapter", CLIP_T5, (), 60 * 295_872),
        ("adapter", {"per_task": True}, EIGHT, 8 * 1_822_656),
    ],
)
def test_counts_of_the_paper_s_recipes_on_t5_base(name, own, tasks, expected):
    built = build_meta_model(
        ModelConfig(backbone="t5-base"), settings(name, **own), max_source_length=256, feature_dim=None, tasks=tasks
    )
    assert built.parameter_budget().trainable == expected


def apply(weights, values, function):
    return function(values @ weights.down.T + weights.down_bias) @ weights.up.T + weights.up_bias


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
@pytest.mark.parametrize("non_linearity", FUNCTIONS)
def test_it_equals_t5_written_out(folders, family, non_linearity):
    own = {"bottleneck": 3, "sites": ALL_SUBLAYERS, "non_linearity": non_linearity}
    model = make(folders[family], settings("adapter", **own), feature_dim=None, moved=0.3)

    def change(stack, layer, part, values):
        weights = model.tuner.adapters[key] if (key := f"{stack}_{layer}_{part}".replace(".", "_")) in names else None
        return values if weights is None else values + apply(weights, values, FUNCTIONS[non_linearity])

    names = dict(model.tuner.adapters)
    assert len(names) == 2 * 2 + 2 * 3
    expected = plain_logits(model.backbone, *TEXT[::2], change=change)  # its norms are the moved ones too
    torch.testing.assert_close(logits(model, TEXT), expected, rtol=1e-5, atol=1e-5)
    frozen = make(folders[family], settings("lora"), feature_dim=None)
    assert not torch.allclose(expected, logits(frozen, TEXT), atol=1e-2)


class After(nn.Module):
    """A module and what is done with its output."""

    def __init__(self, module, step):
        super().__init__()
        self.module, self.step = module, step

    @property
    def weight(self):  # T5 asks for its precision
        return self.module.weight

    def forward(self, values):
        return self.step(self.module(values))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_equals_modules_with_an_adapter_behind_them(folders, family):
    model = make(folders[family], settings("adapter", bottleneck=3, norms=False), moved=0.3)
    other = make(folders[family], settings("fine-tuning"))
    other.visual_projection.load_state_dict(model.visual_projection.state_dict())
    names = {module: name for name, module in other.backbone.model.named_modules()}
    for site in model.tuner.site_hooks():
        module, weights = other.backbone.places[site].module, model.tuner.adapters[site.key]

        def step(values, weights=weights):
            return values + apply(weights, values, nn.GELU("tanh"))

        other.backbone.model.set_submodule(names[module], After(module, step))
    torch.testing.assert_close(logits(model), logits(other), rtol=1e-5, atol=1e-5)
    ids, mask, _, features = batch()
    tokens = [one.generate(ids, mask, features, num_beams=3, max_new_tokens=5) for one in (model, other)]
    assert torch.equal(*tokens)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("own", [{}, {"per_task": True}, {"post_norm": True, "init": "linear"}])
def test_without_up_projection_it_is_the_frozen_model(folders, family, own):
    tasks = TASKS if own.get("per_task") else ()
    model = make(folders[family], settings("adapter", bottleneck=3, **own), tasks=tasks)
    for weights in model.tuner.adapters.values():
        nn.init.zeros_(weights.up)
        nn.init.zeros_(weights.up_bias)
    assert torch.equal(logits(model), logits(make(folders[family], settings("lora"))))


def test_it_starts_near_the_frozen_model_and_as_linear_maps_do_far_from_it(folders):
    frozen = logits(make(folders["t5"], settings("lora")))
    far = {}
    for name, own in (("near", {}), ("linear", {"init": "linear"}), ("identity", {"init_std": 0.0})):
        far[name] = (logits(make(folders["t5"], settings("adapter", bottleneck=8, **own))) - frozen).abs().max().item()
    assert far["identity"] == 0.0
    assert 0.0 < far["near"] < 0.02  # logits are of the size of 10
    assert far["linear"] > 10 * far["near"]


@pytest.mark.parametrize("init", ["near-identity", "linear"])
def test_first_values_are_drawn_as_said(folders, init):
    tuner = make(folders["t5"], settings("adapter", bottleneck=400, init=init)).tuner
    linear = [nn.Linear(16, 400), nn.Linear(400, 16)]
    for weights in tuner.adapters.values():
        pairs = ((weights.down, weights.down_bias), (weights.up, weights.up_bias))
        for (matrix, bias), module in zip(pairs, linear, strict=True):
            if init == "near-identity":
                assert not bias.any()
                assert matrix.std().item() == pytest.approx(0.01, rel=0.05)
                assert matrix.abs().max() > 0.03  # normal and not uniform
            else:
                assert matrix.std().item() == pytest.approx(module.weight.std().item(), rel=0.05)
                bound = module.in_features**-0.5
                assert 0.5 * bound < bias.abs().max() <= bound
    one, other = list(tuner.adapters.values())[:2]
    assert not torch.equal(one.down, other.down)


def test_adapterdrop_has_none_in_lower_blocks_and_trains_every_norm(folders):
    tuner = settings("adapterdrop", layers=[1], bottleneck=3).empty(context(folders["t5"]))
    sites = {
        Site("encoder", 1, "self_attn.o"), Site("encoder", 1, "ff.out"),
        Site("decoder", 1, "self_attn.o"), Site("decoder", 1, "ff.out"),
    }  # fmt: skip
    assert set(tuner.site_hooks()) == sites
    assert len(tuner.trained_backbone_parameters(())) == 2 * (2 + 3) + 2


@pytest.mark.parametrize(("family", "norms"), [("t5", 12), ("llama", 5), ("gpt2", 10)])  # GPT-2's have biases
def test_the_backbone_s_norms_train_if_asked_for(folders, family, norms):
    model = make(folders[family], settings("adapter", bottleneck=3))
    own = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    assert len(own) == norms
    assert all("norm" in name or "ln_" in name for name in own)
    assert [group.name for group in model.param_groups()] == ["adapters", "norms", "visual_projection"]
    without = make(folders[family], settings("adapter", bottleneck=3, norms=False))
    assert [group.name for group in without.param_groups()] == ["adapters", "visual_projection"]
    assert not any(p.requires_grad for p in without.backbone.parameters())


IDS = torch.tensor([2, 0, 1])


def per_task(folder, **options):
    return make(folder, settings("adapter", bottleneck=3, per_task=True), tasks=TASKS, moved=0.3, **options)


def with_tasks(model, task_ids, rows=slice(None)):
    with torch.no_grad():
        return model(*(tensor[rows] for tensor in batch()), task_ids).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_of_a_mixed_batch_has_its_task_s_adapter(folders, family):
    model = per_task(folders[family])
    mixed = with_tasks(model, IDS)
    for row in range(3):
        alone = with_tasks(model, IDS[row].repeat(3))[row]
        torch.testing.assert_close(mixed[row], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed[0], with_tasks(model, torch.zeros(3, dtype=torch.long))[0], atol=1e-2)


def test_a_task_s_adapter_is_one_with_its_tensors(folders):
    model = per_task(folders["t5"])
    one = make(folders["t5"], settings("adapter", bottleneck=3, post_norm=True))
    state = {name: value[1] if "adapters" in name else value for name, value in model.trainable_state().items()}
    with torch.no_grad():
        for name, tensor in one.trainable_state().items():
            tensor.copy_(state[name])
    torch.testing.assert_close(with_tasks(model, torch.ones(3, dtype=torch.long)), logits(one), rtol=0, atol=0)


def test_without_task_ids_all_rows_are_of_the_first_task(folders):
    model = per_task(folders["t5"])
    assert torch.equal(logits(model), with_tasks(model, torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_of_mixed_tasks_is_that_of_each_row(folders, family, num_beams):
    model = per_task(folders[family])
    ids, mask, _, features = batch()
    found = model.generate(ids, mask, features, IDS, num_beams=num_beams, max_new_tokens=5)
    for row in range(3):
        one = slice(row, row + 1)
        alone = model.generate(ids[one], mask[one], features[one], IDS[one], num_beams=num_beams, max_new_tokens=5)[0]
        expected = torch.nn.functional.pad(alone, (0, found.shape[1] - len(alone)), value=int(found[row, -1]))
        assert torch.equal(found[row], expected)


@pytest.mark.parametrize("task_ids", [IDS, torch.tensor([1, 1, 1])])
def test_gradients_reach_the_tasks_of_a_batch_alone(folders, task_ids):
    model = per_task(folders["t5"]).train()
    model(*batch(), task_ids).loss_per_example.sum().backward()
    for weights in model.tuner.adapters.values():
        assert set(weights.up.grad.abs().sum(dim=(1, 2)).nonzero()[:, 0].tolist()) == set(task_ids.tolist())


@pytest.mark.parametrize(
    ("family", "own", "message"),
    [
        (
            "t5",
            {"layers": [0, 2, 9]},
            r"tuner\.layers: this backbone has no block 2, 9; it has 2 in its encoder \(0 to 1",
        ),
        ("gpt2", {"layers": [2]}, r"no block 2; it has 2 in its decoder \(0 to 1\)"),
        ("gpt2", {"sites": ["cross_attn.o"]}, r"tuner\.sites: this backbone has no 'cross_attn\.o' \(it has: ff\.in, "),
        ("t5", {"reduction": 17}, r"tuner\.reduction: 17 leaves no width of a backbone that is 16 wide; at most 16"),
        ("t5", {}, r"tuner\.reduction: 32 \(the default\) leaves no width of a backbone that is 16 wide"),
        ("t5", {"bottleneck": 3, "per_task": True}, r"tuner\.per_task: true .* the run has one task; name several"),
    ],
)
def test_what_the_backbone_cannot_have_is_refused(folders, family, own, message):
    with pytest.raises(ConfigError, match=message):
        settings("adapter", **own).empty(context(folders[family]))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"bottleneck": 24, "reduction": 32}, "bottleneck=24 and reduction=32 both say how wide it is"),
        ({"bottleneck": 0}, r"tuner\.bottleneck: .*greater than or equal to 1.*0"),
        ({"sites": []}, r"tuner\.sites: "),
        ({"sites": ["ff.in"]}, r"tuner\.sites: should be 'self_attn\.o', .* got 'ff\.in'"),
        ({"layers": [-1]}, r"tuner\.layers: .*got -1"),
        ({"non_linearity": "gelu-new"}, r"tuner\.non_linearity: .*gelu-new"),
        ({"rank": 3}, r"rank"),
    ],
)
def test_settings_that_mean_nothing_are_refused(own, message):
    with pytest.raises(ConfigError, match=message):
        settings("adapter", **own)


@pytest.mark.parametrize("family", DECODER_ONLY)
def test_blocks_can_be_chosen_on_decoder_only_models(folders, family):
    sites = settings("adapter", bottleneck=3, layers=[1]).empty(context(folders[family])).site_hooks()
    assert set(sites) == {Site("decoder", 1, "self_attn.o"), Site("decoder", 1, "ff.out")}
