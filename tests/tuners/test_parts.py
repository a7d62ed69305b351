"""Parts of a model set to their start or left out: without all of them it is the frozen model, on every family."""

import pytest
import torch

from dept_vl.models.language.load import open_backbone
from dept_vl.models.parts import ModelPart, left_out, model_parts, set_to_start
from tests.tuners.adapted import FAMILIES, batch, logits, make, settings
from tests.tuners.test_laws import every_method, on_families, tuner_of

LORA_WITH_BIASES = {"rank": 2, "dropout": 0.0, "biases": "all"}


def frozen_logits(folder):
    nothing = settings("dept", budget_tokens=1, num_virtual_tokens=0, rank=0, allow_nearest=True)
    return logits(make(folder, nothing))


def moved(folder, tuner):
    """A model whose tensors are all away from their start, those of the backbone too."""
    return make(folder, tuner, moved=0.1)


def own_values(model):
    return dict(open_backbone(model.config)[0].model.named_parameters())


def part(model, name) -> ModelPart:
    (found,) = [one for one in model_parts(model) if one.name == name]
    return found


@on_families(*FAMILIES)
def test_without_all_its_groups_it_is_the_frozen_model(folders, family, name):
    model = moved(folders[family], tuner_of(name))
    before = logits(model)
    whole = part(model, tuner_of(name).label) if len(model_parts(model)) > 2 else model_parts(model)[0]
    assert not torch.equal(before, frozen_logits(folders[family]))
    with left_out(model, whole, own_values(model)):
        assert torch.equal(logits(model), frozen_logits(folders[family]))
    assert torch.equal(logits(model), before)


@on_families("t5", "llama")
def test_each_part_can_be_left_out_alone(folders, family, name):
    model = moved(folders[family], tuner_of(name))
    before = logits(model)
    for one in model_parts(model):
        if not one.is_projection:
            with left_out(model, one, own_values(model)):
                found = logits(model)
                generated = model.generate(*batch()[:2], max_new_tokens=2)
            assert found.isfinite().all(), one.name
            assert not torch.equal(found, before), one.name
            assert len(generated) == len(found)
        assert torch.equal(logits(model), before), one.name


@pytest.mark.parametrize(
    ("family", "name", "own"),
    [("t5", "lora", LORA_WITH_BIASES), ("t5", "dept", {"budget_tokens": 12}), ("gpt2", "dept", {"budget_tokens": 12})],
)
def test_leaving_out_its_groups_one_after_the_other_is_leaving_out_all(folders, family, name, own):
    model = moved(folders[family], settings(name, **own))
    first, second = (one for one in model_parts(model) if len(one.groups) == 1 and not one.is_projection)
    with left_out(model, first, own_values(model)):
        middle = logits(model)
        with left_out(model, second, own_values(model)):
            assert torch.equal(logits(model), frozen_logits(folders[family]))
    assert not torch.equal(middle, frozen_logits(folders[family]))


@every_method
def test_all_at_their_start_are_a_fresh_model(folders, name):
    trained, fresh = (make(folders["t5"], tuner_of(name), seed=3, moved=size) for size in (0.1, 0.0))
    state = {key: value.clone() for key, value in trained.trainable_state().items()}
    parts = [one for one in model_parts(trained) if not one.is_projection]
    whole = max(parts, key=lambda one: len(one.groups))
    with set_to_start(trained, whole, fresh.trainable_state()):
        assert torch.equal(logits(trained), logits(fresh))
    for key, value in trained.trainable_state().items():
        assert torch.equal(value, state[key]), key


def test_a_group_is_set_back_alone(folders):
    trained, fresh = (make(folders["t5"], tuner_of("dept"), moved=size) for size in (0.1, 0.0))
    with set_to_start(trained, part(trained, "lowrank"), fresh.trainable_state()):
        assert torch.equal(trained.tuner.lowrank_b, fresh.tuner.lowrank_b)
        assert not torch.equal(trained.tuner.soft_prompt, fresh.tuner.soft_prompt)


def test_dept_without_its_pair_is_prompt_tuning_and_without_its_prompt_the_pair_alone(folders):
    model = moved(folders["t5"], tuner_of("dept"))
    prompt = moved(folders["t5"], settings("prompt-tuning", num_virtual_tokens=model.tuner.num_virtual_tokens))
    with torch.no_grad():
        prompt.tuner.soft_prompt.copy_(model.tuner.soft_prompt)
    with left_out(model, part(model, "lowrank"), {}):
        assert torch.equal(logits(model), logits(prompt))
    pair = settings("dept", num_virtual_tokens=0, rank=model.tuner.rank, budget_tokens=12, allow_nearest=True)
    alone = moved(folders["t5"], pair)
    with torch.no_grad():
        alone.tuner.lowrank_a.copy_(model.tuner.lowrank_a)
        alone.tuner.lowrank_b.copy_(model.tuner.lowrank_b)
    with left_out(model, part(model, "soft_prompt"), {}):
        assert torch.equal(logits(model), logits(alone))


def test_a_method_of_a_stack_left_out_is_the_other_alone(folders):
    model = moved(folders["t5"], tuner_of("dept+lora"))
    lora = moved(folders["t5"], tuner_of("lora"))
    with torch.no_grad():
        for name, tensor in lora.tuner.trainable_state().items():
            tensor.copy_(model.tuner.trainable_state()[f"parts.lora.{name}"])
    with left_out(model, part(model, "dept"), {}):
        assert torch.equal(logits(model), logits(lora))


def test_what_is_looked_at_is_every_group_every_method_of_a_stack_and_the_whole(folders):
    found = [one.name for one in model_parts(moved(folders["t5"], tuner_of("dept+lora")))]
    assert found == ["dept.soft_prompt", "dept", "dept.lowrank", "lora.lora", "dept+lora", "visual_projection"]
    found = {one.name: one.parameters for one in model_parts(moved(folders["t5"], tuner_of("dept")))}
    model = moved(folders["t5"], tuner_of("dept"))
    assert list(found) == ["soft_prompt", "lowrank", "dept", "visual_projection"]
    assert found["dept"] == model.parameter_budget().tuner
    assert [one.name for one in model_parts(moved(folders["t5"], tuner_of("lora")))] == ["lora", "visual_projection"]
