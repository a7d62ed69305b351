"""The benchmark of a prompt that is read once: its contestants do the same work, and its tables have their rows."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import prefix_once
from benchmarks.prefix_once import Ours, Texts, curves, padded
from tests.models.language.causal_folders import byte_level_tokenizer, save_tiny_llama

SENTENCES = ["the dog", "the red dog ran", "a red cat and the dog ran off", "off"]


@pytest.fixture
def folders(tmp_path):
    backbone = save_tiny_llama(tmp_path / "llama")
    config = prefix_once.AutoConfig.from_pretrained(backbone)
    tokenizer = byte_level_tokenizer(SENTENCES)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(backbone)
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 512
    config.save_pretrained(backbone)
    data = tmp_path / "data"
    (data / "cola.fixed").mkdir(parents=True)
    pq.write_table(pa.table({"sentence": SENTENCES * 4}), data / "cola.fixed" / "train.parquet")
    return str(backbone), str(data)


def test_contestants_do_the_same_work(folders, monkeypatch):
    monkeypatch.setitem(
        prefix_once.TUNERS, "small", {"name": "prompt-tuning", "num_virtual_tokens": 5, "prompt_init": "random"}
    )
    once, each = (Ours(*folders, "small", reads_once, 2, 4, None) for reads_once in (True, False))
    batches = Texts(*folders).batches(2, 4)
    assert [len(batch) for batch in batches] == [4, 4]
    assert max(map(len, batches[0])) <= min(map(len, batches[1]))
    ids, mask = padded(batches[1])
    joints = [one.model.joint_input(ids, mask) for one in (once, each)]
    assert [joint.num_shared for joint in joints] == [5, 0]
    for workload in ("training", "scoring", "generating"):
        assert all(one.run(workload)["cpu_rate"] > 0 for one in (once, each))
    for one, other in zip(once.model.trainable_state().values(), each.model.trainable_state().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_curves_print_a_row_a_point(folders, monkeypatch, capsys):
    monkeypatch.setattr(prefix_once, "CURVES", {"m": [(6, 4, None)], "text": [(6, 4, 8)]})
    curves(*folders, 1, 1, ["m", "text"])
    rows = capsys.readouterr().out.strip().splitlines()
    assert rows[0].startswith("| prompt | batch |")
    assert rows[2].startswith("| 6 | 4 | 10 | 1.39 | ")  # 4 (6 + 10) / (6 + 4 x 10) tokens: 8, and 2 of the target
    assert len(rows) == 3
