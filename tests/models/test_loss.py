"""The loss against torch's own."""

import pytest
import torch

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.models.loss import loss_per_example


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_it_is_torch_s_cross_entropy_of_each_example_s_tokens(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 11, generator=generator)
    labels = torch.tensor([[1, 2, 3, 4], [5, 6, IGNORE_INDEX, IGNORE_INDEX], [7, IGNORE_INDEX, 8, IGNORE_INDEX]])
    losses = loss_per_example(logits, labels, smoothing)
    for row in range(3):
        expected = torch.nn.functional.cross_entropy(
            logits[row], labels[row], ignore_index=IGNORE_INDEX, label_smoothing=smoothing
        )
        torch.testing.assert_close(losses[row], expected)
    counts = (labels != IGNORE_INDEX).sum(dim=1)
    whole = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, label_smoothing=smoothing
    )
    torch.testing.assert_close((losses * counts).sum() / counts.sum(), whole)


def test_smoothing_is_a_mixture_with_all_words_alike():
    logits, labels = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([[2]])
    log_p = logits.log_softmax(-1)[0, 0]
    expected = -(0.9 * log_p[2] + 0.1 * log_p.mean())
    torch.testing.assert_close(loss_per_example(logits, labels, 0.1)[0], expected)


def test_an_example_without_labels_has_no_loss():
    labels = torch.full((1, 3), IGNORE_INDEX)
    assert loss_per_example(torch.randn(1, 3, 5), labels, 0.1).item() == 0.0
