"""The benchmark of questions about one image: its contestants do the same work, and its curve has its rows."""

import gzip
import json

import pytest
import torch

from benchmarks import image_once
from benchmarks.image_once import OnImages, curve, read_questions
from benchmarks.prefix_once import TUNERS
from tests.models.language.causal_folders import byte_level_tokenizer, save_tiny_llama

QUESTIONS = [f"what is {number}?" for number in range(20)]


@pytest.fixture
def given(tmp_path, monkeypatch):
    backbone = save_tiny_llama(tmp_path / "llama")
    tokenizer = byte_level_tokenizer([*QUESTIONS, *image_once.ANSWERS])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(backbone)
    config = image_once.AutoConfig.from_pretrained(backbone)
    config.vocab_size, config.max_position_embeddings = len(tokenizer) + 1, 512
    config.save_pretrained(backbone)
    questions = tmp_path / "questions.gz"
    questions.write_bytes(gzip.compress(json.dumps({"questions": [{"question": one} for one in QUESTIONS]}).encode()))
    small = {"name": "prompt-tuning", "num_virtual_tokens": 5, "prompt_init": "random"}
    monkeypatch.setitem(TUNERS, "DePT m = 40", small)
    return {"backbone": str(backbone), "questions": str(questions)}


def test_contestants_do_the_same_work(given):
    settings = {**given, "tuner": "DePT m = 40", "steps": 2, "batch_size": 7, "per_image": 5, "layers": 1}
    once, each = (OnImages(**settings, reads_once=reads_once) for reads_once in (True, False))
    assert len({id(image) for image in once._batches[0][2]}) == 2
    joints = [one.model.joint_input(*once._batches[0]) for one in (once, each)]
    assert [len(segment.embeds) for segment in joints[0].divided.before] == [1, 2]
    assert joints[1].divided is None
    for workload in ("training", "scoring", "generating"):
        assert all(one.run(workload)["cpu_rate"] > 0 for one in (once, each))
    for one, other in zip(once.model.trainable_state().values(), each.model.trainable_state().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_questions_are_the_first_of_the_file(given, tmp_path):
    assert read_questions(given["questions"], 3) == QUESTIONS[:3]
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"questions": [{"question": "why?"}]}))
    assert read_questions(str(plain), 3) == ["why?"]


def test_the_curve_prints_a_row_a_point(given, monkeypatch, capsys):
    monkeypatch.setattr(image_once, "PER_IMAGE", (1, 4))
    curve(*given.values(), 1, 8, 1)
    rows = capsys.readouterr().out.strip().splitlines()
    assert rows[0].startswith("| questions an image |")
    assert [row.split(" | ")[1] for row in rows[1:]] == ["8", "2"]
