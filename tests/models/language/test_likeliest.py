"""The likeliest answers of a beam search, against every answer there is."""

import itertools

import pytest
import torch

from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.likeliest import likeliest
from tests.models.language.test_label_scoring import batch, make

END = 1
EVERY = [[END], *([first, second] for first, second in itertools.product(range(32), repeat=2) if first != END)]
"""Every answer of at most two tokens, those that are cut before their end among them."""


@pytest.mark.parametrize("kind", ["t5", "t5-v1.1", "gpt2", "llama"])
def test_as_many_beams_as_words_find_the_likeliest_of_all_answers(folders, kind):
    model, _ = make(folders[kind])
    inputs = batch()
    with torch.no_grad(), model.answering(*inputs) as joint:
        ids, found = likeliest(model.backbone, joint, number=32, max_new_tokens=2)
    expected, order = model.score_labels(*inputs, labels=LabelTrie.build(EVERY)).topk(32, dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for row, numbers in zip(ids.tolist(), order.tolist(), strict=True):
        written = [[*one[: one.index(END)], END] if END in one else one for one in row]
        assert sorted(written) == sorted(EVERY[number] for number in numbers)
