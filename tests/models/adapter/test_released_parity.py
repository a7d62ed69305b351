"""Our forward and generate against the released DePT code's, run beside ours once (see goldens/)."""

import json
from pathlib import Path

import pytest
import torch

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.config import ModelConfig
from dept_vl.tuners import DeptConfig
from dept_vl.tuners.context import TunerContext
from tests.models.adapter.goldens.random_adapters import CASES, random_adapter, random_backbone
from tests.models.adapter.goldens.random_values import D_MODEL, LABELS, MAX_NEW_TOKENS, TEXTS, padded

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "released_forward.json").read_text())
IGNORED = -100


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture
def model(case):
    config = DeptConfig(
        num_virtual_tokens=case.num_virtual_tokens, rank=case.rank, allow_nearest=True, scaling="alpha/sqrt(r)"
    )
    built = AdaptedModel(
        random_backbone(case), config.empty(TunerContext(D_MODEL, case.max_source_length)), None, ModelConfig()
    ).eval()
    adapter = random_adapter(case)
    with torch.no_grad():
        built.tuner.soft_prompt.copy_(adapter["prompt_embeddings"])
        built.tuner.lowrank_a.copy_(adapter["prompt_encoder.lora_embedding_A"])
        built.tuner.lowrank_b.copy_(adapter["prompt_encoder.lora_embedding_B"])
    return built


def batch(rows, length):
    ids = padded(tuple(TEXTS[row] for row in rows), length)
    labels = torch.tensor([LABELS[row] for row in rows])
    return ids, (ids != 0).long(), labels


PADDINGS = {
    "longest": lambda s: [((row,), len(TEXTS[row])) for row in range(len(TEXTS))],
    "max_length": lambda s: [((0, 1, 2, 3), s)],
    "mixed batch": lambda s: [((3, 2), len(TEXTS[2])), ((1, 0), len(TEXTS[1]))],
}


@pytest.mark.parametrize("padding", PADDINGS)
def test_logits_and_losses_are_the_released_code_s(model, case, padding):
    golden = GOLDENS[case.name]
    for rows, length in PADDINGS[padding](case.max_source_length):
        with torch.no_grad():
            output = model(*batch(rows, length))
        for index, row in enumerate(rows):
            expected = torch.tensor(golden["logits"][row])
            torch.testing.assert_close(output.logits[index, : len(expected)], expected, rtol=0, atol=1e-4)
        losses = torch.tensor([golden["loss"][row] for row in rows])
        torch.testing.assert_close(output.loss_per_example, losses, rtol=0, atol=1e-4)


@pytest.mark.parametrize("padding", PADDINGS)
def test_greedy_ids_are_the_released_code_s(model, case, padding):
    golden = GOLDENS[case.name]
    for rows, length in PADDINGS[padding](case.max_source_length):
        ids, mask, _ = batch(rows, length)
        generated = model.generate(ids, mask, max_new_tokens=MAX_NEW_TOKENS).tolist()
        for index, row in enumerate(rows):
            expected = golden["generated"][row]
            assert generated[index][: len(expected)] == expected
            assert not any(generated[index][len(expected) :])


def test_the_goldens_tell_the_update_s_scaling_and_place_apart(model, case):
    """A wrong scaling, or rows shifted by one, must be further from the goldens than the tolerance."""
    expected = torch.tensor(GOLDENS[case.name]["logits"][1])
    for change in (lambda t: setattr(t, "scaling", 1.0), lambda t: t.lowrank_a.copy_(t.lowrank_a.roll(1, 0))):
        with torch.no_grad():
            change(model.tuner)
            wrong = model(*batch((1,), len(TEXTS[1]))).logits[0, : len(expected)]
        assert (wrong - expected).abs().max() > 1e-2
