"""Methods that act by task, on batches of several tasks: scoring, recomputing, two parts of a stack."""

import pytest
import torch

from dept_vl.models.language.label_trie import LabelTrie
from tests.tuners.adapted import DECODER_ONLY, FAMILIES, TASKS, batch, make, settings

OWN = {"adapter": {"bottleneck": 3, "per_task": True}, "hyperformer": {"bottleneck": 3}}
IDS = torch.tensor([2, 0, 1])
STACKS = ["lora+hyperformer", "hyperformer+hyperdecoder"]


def mixed(folder, name, **options):
    own = {f"parts.{part}.{key}": value for part in name.split("+") for key, value in OWN.get(part, {}).items()}
    tuner = settings(name, **(own if "+" in name else OWN[name]))
    return make(folder, tuner, **{"tasks": TASKS, "moved": 0.1, "dropout_rate": 0.0, **options})


def cases(*families):
    pairs = [(name, family) for name in OWN for family in families]
    fitting = [(name, family) for name, family in pairs if name == "adapter" or family not in DECODER_ONLY]
    return pytest.mark.parametrize(("name", "family"), fitting)


@cases(*FAMILIES)
def test_labels_are_scored_as_teacher_forced_forwards(folders, name, family):
    model = mixed(folders[family], name)
    ids, mask, _, features = batch()
    label_ids = [[5, 6, 1], [5, 7, 8, 1], [9, 1]]
    scores = model.score_labels(ids, mask, features, IDS, labels=LabelTrie.build(label_ids))
    for number, label in enumerate(label_ids):
        with torch.no_grad():
            output = model(ids, mask, torch.tensor([label]).expand(3, -1), features, IDS)
        torch.testing.assert_close(scores[:, number], -output.loss_per_example * len(label), rtol=1e-4, atol=1e-4)
    others = model.score_labels(ids, mask, features, IDS.flip(0), labels=LabelTrie.build(label_ids))
    assert not torch.allclose(scores, others, atol=1e-2)


def gradients(model, rows=(slice(None),)):
    model.train()
    for row in rows:
        model(*(tensor[row] for tensor in batch()), IDS[row]).loss_per_example.sum().backward()
    return {key: p.grad for key, p in model.named_parameters() if p.requires_grad}


@cases("t5", "llama")
def test_gradients_are_those_of_the_rows_and_of_recomputed_activations(folders, name, family):
    expected = gradients(mixed(folders[family], name), [slice(row, row + 1) for row in range(3)])
    for recompute in (False, True):
        found = gradients(mixed(folders[family], name, gradient_checkpointing=recompute))
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5)
    if name == "hyperformer":
        assert all(expected["tuner.task_embeddings"].abs().sum(dim=1) > 0)


@pytest.mark.parametrize("name", STACKS)
def test_in_a_stack_each_row_still_has_its_own(folders, name):
    model = mixed(folders["t5"], name)
    with torch.no_grad():
        together = model(*batch(), IDS).logits
        for row in range(3):
            alone = model(*batch(), IDS[row].repeat(3)).logits[row]
            torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)
