"""The methods of ``peft`` against ``peft`` put into the transformers model itself, with the same weights."""

import copy
from importlib import metadata

import pytest
import torch

from dept_vl.errors import ConfigError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import open_backbone
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.places.hooks import LinearMap, NarrowMap
from tests.tuners.adapted import FAMILIES, S, batch, logits, make, settings
from tests.tuners.peft.without import train_nothing_of_peft_s

peft = pytest.importorskip("peft", reason="a package that computes dora is not installed")

NAMES = ("adalora", "dora", "rslora", "vera")
SITES = {
    "t5": (["attn.q", "attn.k", "attn.v", "attn.o", "ff.in", "ff.out"], ["q", "k", "v", "o", "wi", "wo"]),
    "t5-v1.1": (["attn.q", "attn.v", "ff.gate", "ff.out"], ["q", "v", "wi_0", "wo"]),
    "gpt2": (["attn.o", "ff.in", "ff.out"], ["c_proj", "c_fc"]),  # q, k and v are one module there
    "llama": (["attn.q", "attn.k", "attn.o", "ff.gate"], ["q_proj", "k_proj", "o_proj", "gate_proj"]),
}
SIZES = {
    "adalora": {"rank": 2, "initial_rank": 3, "alpha": 6.0, "allocate_every_steps": 1},
    "dora": {"rank": 3, "alpha": 6.0},
    "rslora": {"rank": 3, "alpha": 6.0},
    "vera": {"rank": 5, "projection_seed": 7},
}


def theirs_of(name, targets, **more):
    """The settings of peft itself."""
    if name == "vera":
        return peft.VeraConfig(r=5, projection_prng_key=7, target_modules=targets, **more)
    if name == "adalora":
        return peft.AdaLoraConfig(
            init_r=3, target_r=2, lora_alpha=6, total_step=100, target_modules=targets, orth_reg_weight=0.1, **more
        )
    return peft.LoraConfig(
        r=3, lora_alpha=6, use_dora=name == "dora", use_rslora=name == "rslora", target_modules=targets, **more
    )


def both(folder, family, name, **own):
    """Our model, moved from its start, and peft in the transformers model with our weights."""
    sites, targets = SITES[family]
    ours = make(folder, settings(name, sites=sites, **SIZES[name], **own), moved=0.3, dropout_rate=0.0)
    other = make(folder, settings("fine-tuning"), dropout_rate=0.0)
    library = peft.get_peft_model(other.backbone.model, theirs_of(name, targets))
    count = 0
    with torch.no_grad():
        other.visual_projection.load_state_dict(ours.visual_projection.state_dict())
        for site, hook in ours.tuner.site_hooks().items():
            twin = other.backbone.places[site].module
            parameters = dict(twin.named_parameters())
            for key, value in ours.tuner.layers[site.key].named_parameters():
                parameters[key].copy_(value)
                count += value.numel() * value.requires_grad
            assert hook is not None
    assert count == ours.parameter_budget().tuner
    assert count == sum(p.numel() for p in other.backbone.parameters() if p.requires_grad)
    return ours, other.eval(), library


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_gradients_and_answers_are_peft_s(folders, family, name):
    ours, other, _ = both(folders[family], family, name)
    frozen = make(folders[family], settings("bitfit"))
    frozen.visual_projection.load_state_dict(ours.visual_projection.state_dict())
    torch.testing.assert_close(logits(ours), logits(other), rtol=1e-5, atol=2e-5)
    assert not torch.allclose(logits(ours), logits(frozen), atol=1e-2)
    ids, mask, labels, features = batch()
    tokens = [model.generate(ids, mask, features, num_beams=3, max_new_tokens=5) for model in (ours, other)]
    assert torch.equal(*tokens)
    # In float64: small gradients are sums that nearly cancel. Without images, whose features are float32.
    losses = [model.double()(ids, mask, labels, None).loss_per_example for model in (ours, other)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for loss in losses:
        loss.mean().backward()
    compared = 0
    for site in ours.tuner.site_hooks():
        twin = dict(other.backbone.places[site].module.named_parameters())
        for key, parameter in ours.tuner.layers[site.key].named_parameters():
            if parameter.requires_grad:
                size = float(twin[key].grad.abs().max())
                torch.testing.assert_close(parameter.grad, twin[key].grad, rtol=1e-4, atol=1e-5 * size)
                assert size > 1e-6
                compared += 1
    assert compared == len([p for p in ours.tuner.parameters() if p.requires_grad])


def test_adalora_s_loss_and_ranks_are_peft_s_over_a_whole_run(folders):
    ours, other, library = both(folders["t5"], "t5", "adalora", warmup_share=0.25, final_share=0.375)
    settings_of = library.peft_config["default"]
    settings_of.total_step, settings_of.tinit, settings_of.tfinal = 8, 2, 3
    library.base_model.rankallocator.beta1 = library.base_model.rankallocator.beta2 = 0.85
    names = {
        (site.key, key): dict(other.backbone.places[site].module.named_parameters())[key]
        for site in ours.tuner.site_hooks()
        for key, p in ours.tuner.layers[site.key].named_parameters()
        if p.requires_grad
    }
    optimizers = [
        torch.optim.SGD([ours.tuner.layers[site].get_parameter(key) for site, key in names], lr=0.05),
        torch.optim.SGD(list(names.values()), lr=0.05),
    ]
    ours.train(), other.train()
    singular, kept = 0, []
    for step in range(1, 9):
        loss = other(*batch()).loss_per_example.mean()
        # Zhang et al. 2023, equation 4: the distance of every P'P and QQ' from the unit matrix, here their mean
        distances = [
            torch.linalg.norm((p @ p.T if "lora_A" in key else p.T @ p) - torch.eye(3))
            for (_, key), p in names.items()
            if "lora_E" not in key
        ]
        losses = [ours(*batch()).loss_per_example.mean(), loss + 0.1 * sum(distances) / len(distances)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
        for optimizer, one in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            one.backward()
            optimizer.step()
        ours.tuner.after_step(step, 8)
        library.base_model.update_and_allocate(step)
        values = [p for (_, key), p in names.items() if "lora_E" in key]
        for (site, key), p in names.items():
            torch.testing.assert_close(ours.tuner.layers[site].get_parameter(key), p, rtol=1e-4, atol=1e-5)
        singular, zeros = sum(p.numel() for p in values), sum(int((p == 0).sum()) for p in values)
        kept.append(singular - zeros)
    assert kept[:2] == [singular, singular]
    assert kept[-4:] == [singular * 2 // 3] * 4  # rank 2 of 3, on average, from step 5 on
    assert singular > kept[2] > kept[4]


def test_a_run_that_skips_the_last_choice_of_ranks_makes_it_at_the_next_step(folders):
    model = make(folders["t5"], settings("adalora", **SIZES["adalora"], warmup_share=0.0, final_share=0.5)).train()
    for step in (1, 3, 4):  # the ranks of 4 steps are chosen after the second
        model.zero_grad()
        model(*batch()).loss_per_example.mean().backward()
        with torch.no_grad():
            for p in model.tuner.parameters():
                if p.requires_grad:
                    p -= 0.1 * p.grad.sign()
        model.tuner.after_step(step, 4)
    values = [p for name, p in model.tuner.named_parameters() if ".lora_E." in name]
    assert sum(int((p != 0).sum()) for p in values) == 2 * len(values)


def test_a_run_without_a_step_has_no_ranks_to_keep(folders):
    tuner = make(folders["t5"], settings("adalora", **SIZES["adalora"], final_share=0.5)).tuner
    tuner.after_step(4, 4)
    assert tuner.training_state() == {}


@pytest.mark.parametrize("name", NAMES)
def test_first_values_follow_from_the_seed_alone_and_leave_torch_s_generator(folders, name):
    states = []
    for seed, stirred in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(stirred)
        model = make(folders["t5"], settings(name, **SIZES[name]), seed=seed)
        drawn = torch.rand(2)
        torch.manual_seed(stirred)
        assert torch.equal(drawn, torch.rand(2))
        states.append(model.tuner.layers.state_dict())
    same = [[torch.equal(states[0][key], states[other][key]) for key in states[0]] for other in (1, 2)]
    assert all(same[0])
    assert all(same[1]) == (name == "vera")  # which starts from constants


def test_vera_s_random_matrices_are_in_no_file_and_follow_from_their_seed(folders, tmp_path):
    models = [make(folders["t5"], settings("vera", rank=5, projection_seed=seed)) for seed in (7, 7, 8)]
    projections = [{key: b for key, b in model.tuner.named_buffers() if "vera_A" in key} for model in models]
    (first,), (second,), (third,) = projections  # one of each, shared by all places
    assert torch.equal(projections[0][first], projections[1][second])
    assert not torch.equal(projections[0][first], projections[2][third])
    assert all("lambda" in key for key in models[0].tuner.trainable_state())


def count(name, **own):
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings(name, **own), max_source_length=256, feature_dim=None
    )
    return model.parameter_budget().trainable


def test_counts_on_t5_base():
    places = 72  # q and v of 36 attentions, all 768 x 768
    assert count("rslora", rank=8) == places * 2 * 8 * 768
    assert count("dora", rank=8) == places * (2 * 8 * 768 + 768)
    assert count("adalora", initial_rank=12) == places * (2 * 12 * 768 + 12)
    assert count("vera", rank=256) == places * (768 + 256)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_it_folds_to_the_map_that_it_is(folders, family, name):
    tuner = make(folders[family], settings(name, sites=["attn.q", "ff.out"], **SIZES[name]), moved=0.3).tuner
    generator = torch.Generator().manual_seed(0)
    for site, hook in tuner.site_hooks().items():
        context = open_backbone(ModelConfig(backbone=str(folders[family])))[0].tuner_context(S)
        weight, bias = context.weight(site), context.bias(site)
        assert (bias is not None) == (family == "gpt2")
        for added in (None, torch.randn(len(weight), generator=generator)):
            total = bias if added is None else added if bias is None else bias + added
            narrow = NarrowMap(lambda x: torch.tanh(x[..., :2]), torch.randn(len(weight), 2, generator=generator))
            linear = LinearMap(weight, total, (narrow,))
            inputs = torch.randn(2, 5, weight.shape[1], generator=generator)
            expected = hook(inputs, linear(inputs), None)
            torch.testing.assert_close(hook.fold(linear)(inputs), expected, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(linear(inputs), expected, atol=1e-3)


def test_with_active_dropout_it_is_no_map(folders):
    tuner = make(folders["t5"], settings("dora", dropout=0.5)).tuner
    hook, linear = next(iter(tuner.site_hooks().values())), LinearMap(torch.randn(16, 16))
    assert hook.fold(linear) is not None
    tuner.train()
    assert hook.fold(linear) is None


@pytest.mark.parametrize("name", NAMES)
def test_trained_tensors_are_float32_on_a_backbone_that_is_not(folders, name):
    model = make(folders["llama"], settings(name, **SIZES[name]), moved=0.1, dtype="bfloat16")
    assert {p.dtype for p in model.tuner.parameters()} == {torch.float32}
    wide = make(folders["llama"], settings(name, **SIZES[name]), moved=0.1)
    for key, value in model.tuner.trainable_state().items():
        if "magnitude" not in key:  # the lengths of rows that are rounded
            assert torch.equal(value, wide.tuner.trainable_state()[key]), key
    model.train()(*batch()).loss_per_example.mean().backward()
    assert all(p.grad is not None for p in model.tuner.parameters() if p.requires_grad)


def test_the_frozen_matrices_are_held_once(folders):
    model = make(folders["t5"], settings("dora"))
    inside = {p.data_ptr() for p in model.backbone.parameters()}
    assert not inside & {p.data_ptr() for p in model.tuner.parameters()}
    assert sum(p.numel() for p in model.tuner.parameters()) == model.parameter_budget().tuner


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("adalora", {"rank": 12}, "rank=12 must be less than initial_rank=12"),
        ("adalora", {"warmup_share": 0.5, "final_share": 0.5}, "must add up to less than 1"),
        ("dora", {"initial_rank": 3}, "initial_rank"),
        ("rslora", {"sites": ["self_attn.w"]}, "self_attn.w"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, own, message):
    with pytest.raises(ConfigError, match=message):
        settings(name, **own)


def test_a_place_that_the_backbone_has_not_is_refused_with_those_it_has(folders):
    with pytest.raises(ConfigError, match=r"tuner\.sites: this backbone has no 'cross_attn\.q' \(it has: ff\.gate, "):
        make(folders["llama"], settings("vera", sites=["cross_attn.q"]))


@pytest.mark.parametrize("name", ["vera", "lora+vera"])
def test_without_the_package_it_says_how_to_get_it(folders, monkeypatch, name):
    found = metadata.version

    def version(package):
        if package == "peft":
            raise metadata.PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr(metadata, "version", version)
    message = r"tuner\.name: 'vera' needs peft, which is not installed; run: pip install 'dept-vl\[peft\]'"
    with pytest.raises(ConfigError, match=message):
        settings(name).check_packages()
    with pytest.raises(ConfigError, match=message):
        make(folders["t5"], settings(name))


def test_a_stack_hands_each_part_its_own_training_state(folders):
    own = {f"parts.adalora.{key}": value for key, value in SIZES["adalora"].items()}
    model = make(
        folders["t5"], settings("prompt-tuning+adalora", **own, **{"parts.prompt-tuning.num_virtual_tokens": 2})
    )
    model.train()(*batch()).loss_per_example.mean().backward()
    model.tuner.after_step(1, 10)
    state = copy.deepcopy(model.tuner.training_state())
    assert state
    assert {key.rsplit(".", 3)[0] for key in state} == {"adalora.importance", "adalora.uncertainty", "adalora.kept"}
    again = make(folders["t5"], model.tuner.config)
    again.tuner.load_training_state(state)
    assert all(torch.equal(value, state[key]) for key, value in again.tuner.training_state().items())


def test_peft_is_not_imported_for_other_methods(fresh_process):
    assert fresh_process.run(train_nothing_of_peft_s) == 0
