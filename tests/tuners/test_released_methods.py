"""Methods on the embeddings against their released code, run beside ours once (see goldens/)."""

import json
from pathlib import Path

import pytest
import torch

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.config import ModelConfig
from dept_vl.tuners.base import Tuner
from dept_vl.tuners.context import TunerContext
from tests.models.adapter.goldens.random_adapters import CASES, random_backbone
from tests.models.adapter.goldens.random_values import D_MODEL, LABELS, TEXTS, padded
from tests.tuners.adapted import settings
from tests.tuners.goldens.random_tensors import (
    ADEPT,
    ATTEMPT,
    P_TUNING,
    TASK_IDS,
    ULPT,
    S,
    adept_tensors,
    attempt_tensors,
    p_tuning_tensors,
    ulpt_tensors,
)

TASKS = ("a", "b", "c")
RELEASED_DISTANCE = 128
"""Of T5's relative positions in ATTEMPT's T5, where it is no setting."""


def golden(name: str):
    return json.loads((Path(__file__).parent / "goldens" / f"released_{name}.json").read_text())


def with_tensors(tuner: Tuner, tensors: dict[str, torch.Tensor]) -> Tuner:
    """Puts tensors of all kinds into a tuner; none may be left out."""
    own = dict(tuner.named_parameters()) | dict(tuner.named_buffers())
    assert own.keys() - tensors.keys() <= {"padding"}
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return tuner


def model_of(tuner: Tuner, *, max_distance: int = 20, tasks=()) -> AdaptedModel:
    return AdaptedModel(random_backbone(CASES[0], max_distance), tuner, None, ModelConfig(), tasks=tasks).eval()


def attempt(*, tasks=(), **own) -> AdaptedModel:
    sizes = {"num_virtual_tokens": ATTEMPT["m"], "attention_width": ATTEMPT["width"]}
    config = settings("attempt", **sizes, temperature=ATTEMPT["temperature"], sources=["a", "b", "c"], **own)
    context = TunerContext(D_MODEL, S, tasks=tasks, sites=random_backbone(CASES[0]).tuner_context(S).sites)
    tuner = with_tensors(config.empty(context), attempt_tensors(max(1, len(tasks))))
    return model_of(tuner, max_distance=RELEASED_DISTANCE, tasks=tasks)


@torch.no_grad()
def check(model: AdaptedModel, expected, lengths, tasks=None, atol=1e-4):
    """Compares every text, padded to the given length, with the released code's logits."""
    for row, (text, length) in enumerate(zip(TEXTS, lengths, strict=True)):
        ids = padded((text,), length)
        labels = torch.tensor([[token for token in LABELS[row] if token != -100]])
        ours = model(ids, (ids != 0).long(), labels, task_ids=tasks if tasks is None else tasks[row : row + 1]).logits
        torch.testing.assert_close(ours[0], torch.tensor(expected[row]), rtol=0, atol=atol)


ALONE, PADDED = [len(text) for text in TEXTS], [S] * len(TEXTS)


@pytest.mark.parametrize("lengths", [ALONE, PADDED])
def test_attempt_without_padding_is_the_released_code_s_at_any_padding_of_ours(lengths):
    check(attempt(), golden("attempt")["one task, without padding"], lengths)


def test_attempt_of_several_tasks_is_the_released_code_s():
    expected = golden("attempt")["several tasks, without padding"]
    model = attempt(tasks=TASKS)
    check(model, expected, ALONE, torch.tensor(TASK_IDS))
    ids, labels = padded(TEXTS, S), torch.tensor(LABELS)
    with torch.no_grad():
        together = model(ids, (ids != 0).long(), labels, task_ids=torch.tensor(TASK_IDS)).logits
    for row, rows in enumerate(expected):
        torch.testing.assert_close(together[row, : len(rows)], torch.tensor(rows), rtol=0, atol=1e-4)


@pytest.mark.parametrize("lengths", [ALONE, PADDED])
def test_the_released_slip_of_padding_in_the_maximum_is_a_setting(lengths):
    model = attempt(text_maximum="padded")
    embeddings = model.backbone.embed_tokens(torch.tensor(0))
    model.tuner.padding.copy_(embeddings)
    expected = golden("attempt")["one task, padded"]
    check(model, expected, lengths)
    without = golden("attempt")["one task, without padding"]
    assert (torch.tensor(expected[0]) - torch.tensor(without[0])).abs().max() > 1e-2


def test_adept_is_the_released_code_s():
    config = settings("adept", num_virtual_tokens=ADEPT["m"], rank=ADEPT["r"])
    model = model_of(with_tensors(config.empty(TunerContext(D_MODEL, S)), adept_tensors()))
    check(model, golden("adept"), PADDED)


def test_ulpt_is_the_released_code_s():
    config = settings("ulpt", num_virtual_tokens=ULPT["m"], rank=ULPT["r"])
    model = model_of(with_tensors(config.empty(TunerContext(D_MODEL, S)), ulpt_tensors()))
    check(model, golden("ulpt"), PADDED)


def test_the_prompt_of_p_tuning_is_sung_s_module_s():
    config = settings("p-tuning", num_virtual_tokens=P_TUNING["m"], hidden_size=P_TUNING["h"])
    tuner = with_tensors(config.empty(TunerContext(D_MODEL, S)), p_tuning_tensors())
    torch.testing.assert_close(tuner.as_prompt(), torch.tensor(golden("p-tuning")), rtol=0, atol=2e-6)
