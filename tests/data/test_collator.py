import pytest
import torch

from dept_vl.data.collator import IGNORE_INDEX, Example, collate

EXAMPLES = [Example(7, [5, 6, 1], [9, 1], 0.3), Example(8, [5, 1], [9, 8, 7, 1])]


def test_pads_on_the_right_to_the_longest():
    batch = collate(EXAMPLES, pad_token_id=0)
    assert batch.example_ids == (7, 8)
    assert batch.input_ids.tolist() == [[5, 6, 1], [5, 1, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[9, 1, IGNORE_INDEX, IGNORE_INDEX], [9, 8, 7, 1]]
    torch.testing.assert_close(batch.loss_weights, torch.tensor([0.3, 1.0]))


def test_a_pad_token_inside_a_text_is_attended():
    assert collate([Example(1, [0, 5, 1], [])], pad_token_id=0).attention_mask.tolist() == [[1, 1, 1]]


def test_pads_to_a_given_length():
    assert collate(EXAMPLES, pad_token_id=0, pad_to_length=5).input_ids.shape == (2, 5)


def test_refuses_to_pad_to_less_than_the_longest():
    with pytest.raises(ValueError, match="3 tokens, more than pad_to_length=2"):
        collate(EXAMPLES, pad_token_id=0, pad_to_length=2)


def test_evaluation_has_no_labels():
    assert collate([Example(1, [5, 1], [])], pad_token_id=0).labels.shape == (1, 0)


def test_moving_keeps_absent_features_absent():
    batch = collate(EXAMPLES, pad_token_id=0, visual_features=torch.ones(2, 4, 3)).to("cpu")
    assert batch.visual_features is not None
    assert batch.pixel_values is None
