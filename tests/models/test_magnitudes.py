"""Root mean squares of what a method puts into the input."""

import pytest
import torch

from dept_vl.models.magnitudes import input_magnitudes
from dept_vl.models.shares import describe_shares, embedding_shares, warning_about
from tests.tuners.adapted import batch, make, settings
from tests.tuners.test_laws import every_method, tuner_of


@pytest.fixture
def text():
    return batch(lengths=(6, 3, 1))[:2]


def rms(values):
    return values.detach().double().pow(2).mean().sqrt().item()


def test_of_dept_they_are_its_prompt_and_its_update_over_real_tokens(folders, text):
    model = make(folders["t5"], tuner_of("dept"), moved=0.3)
    ids, mask = text
    found = input_magnitudes(model, ids, mask)
    update = model.tuner.scaling * model.tuner.lowrank_a @ model.tuner.lowrank_b
    rows = torch.cat([update[:length] for length in mask.sum(dim=1)])
    assert found["prompt"] == pytest.approx(rms(model.tuner.soft_prompt), rel=1e-5)
    assert found["update"] == pytest.approx(rms(rows), rel=1e-5)
    assert found["embeddings"] == pytest.approx(rms(model.backbone.source_table[ids[mask.bool()]]), rel=1e-5)


def test_padding_changes_none(folders, text):
    model = make(folders["t5"], tuner_of("adept"), moved=0.3)
    ids, mask = text
    longer = [torch.nn.functional.pad(tensor, (0, 4), value=value) for tensor, value in ((ids, 7), (mask, 0))]
    assert input_magnitudes(model, *longer) == pytest.approx(input_magnitudes(model, ids, mask), rel=1e-5)


@every_method
def test_any_method_has_them_without_a_change_of_mode(folders, text, name):
    model = make(folders["t5"], tuner_of(name), moved=0.1).train()
    tasks = torch.zeros(3, dtype=torch.long) if model.tasks else None
    found = input_magnitudes(model, *text, tasks)
    assert model.tuner.training
    assert ("prompt" in found) == bool(model.tuner.num_virtual_tokens)
    assert all(size > 0 for key, size in found.items() if key != "update")


def test_a_method_that_leaves_the_input_alone_has_none(folders, text):
    assert input_magnitudes(make(folders["t5"], tuner_of("lora"), moved=0.3), *text) == {}


@pytest.mark.parametrize(
    ("update", "percent"),
    [(0.0, None), (0.00099, "0.99 %"), (0.0011, None), (0.5, None)],
    ids=["none", "inert", "some", "much"],
)
def test_an_update_is_inert_below_a_hundredth_of_the_embeddings(update, percent):
    warning = warning_about(embedding_shares({"embeddings": 0.1, "prompt": 1.0, "update": update}))
    assert warning is None if percent is None else percent in warning


def test_nothing_is_not_inert():
    assert embedding_shares({}) == {}
    assert warning_about({}) is None


def test_shares_are_multiples_of_the_embeddings():
    shares = embedding_shares({"embeddings": 0.5, "prompt": 1.0, "update": 0.02})
    assert shares == {"prompt": pytest.approx(2.0), "update": pytest.approx(0.04)}
    told = "the prompt is 2 times, what is added to the text is 0.04 times as large"
    assert describe_shares(shares) == f"beside the text's frozen embeddings {told}"


def test_prompt_tuning_adds_nothing(folders, text):
    model = make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=4), moved=0.1)
    assert input_magnitudes(model, *text)["update"] == 0.0
