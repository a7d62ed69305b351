"""The probability of a greedy answer is that of its tokens by teacher forcing."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from dept_vl.inference.answer import Answerer
from dept_vl.runs.decoding import Decoding
from tests.tuners.adapted import FAMILIES, batch, make, settings


@pytest.mark.parametrize("family", FAMILIES)
def test_how_sure_a_model_is_of_a_greedy_answer_is_the_probability_of_its_tokens(folders, family):
    model = make(folders[family], settings("prompt-tuning", num_virtual_tokens=4), moved=0.5).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    codec = model.backbone.codec_class(tokenizer)
    ids, mask, _, _ = batch((6, 3, 1, 4), (1, 1, 1, 1))
    decoding = Decoding("generate", (), 1, 5)
    with torch.no_grad():
        joint = model.joint_input(ids, mask)
        answers = Answerer(model, codec, None, decoding).answer_joint(joint, [None, 1, 3, None])
        tokens = model.backbone.generate(joint, num_beams=1, max_new_tokens=5)
    for row, (answer, found) in enumerate(zip(answers, tokens, strict=True)):
        own = found[: answer.num_tokens][None]
        # By teacher forcing, each row by itself and without padding.
        source = ids[row : row + 1, : int(mask[row].sum())]
        logits = model(source, torch.ones_like(source), own).logits
        expected = logits.log_softmax(-1).gather(-1, own[:, :, None]).sum().exp().item()
        assert answer.confidence == pytest.approx(expected, rel=1e-4)
        assert 0 < answer.confidence < 1
    beams = Answerer(model, codec, None, replace(decoding, num_beams=2)).answer_joint(joint)
    assert [answer.confidence for answer in beams] == [None] * 4
