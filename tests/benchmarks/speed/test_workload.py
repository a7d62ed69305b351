"""The work contestants are given is what it says it is."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from benchmarks.speed.workload import (
    POOL_BATCHES,
    TextWork,
    glue_lengths,
    make_texts,
    shape,
    train_config,
    write_backbone,
    write_text_work,
)
from dept_vl.data.sampler import StepBatches
from dept_vl.runs.open import open_run


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone"), shape("tiny"))


@pytest.mark.parametrize(
    ("data_set", "rows", "mean"), [("cola", 8551, 13.4), ("sst2", 6735, 16.9), ("mrpc", 3668, 61.4)]
)
def test_lengths_are_those_of_the_real_rows(data_set, rows, mean):
    lengths = glue_lengths(data_set)
    assert len(lengths) == rows
    assert lengths.mean() == pytest.approx(mean, abs=0.05)


def test_texts_have_the_lengths_asked_for(backbone):
    tokenizer = AutoTokenizer.from_pretrained(str(backbone))
    texts = make_texts(tokenizer, [4, 11, 60], seed=0)
    assert [len(tokenizer(f"sentence: {text}")["input_ids"]) for text in texts] == [4, 11, 60]


@pytest.mark.parametrize("name", ["tiny", "small", "base", "large"])
def test_every_shape_spends_the_budget_exactly(name):
    kind = shape(name)
    d, m, r = kind.config.d_model, kind.num_virtual_tokens, kind.rank
    assert m * d + (kind.max_source_length + d) * r == kind.budget_tokens * d


def test_peers_are_given_the_very_batches_of_a_run(backbone, tmp_path):
    work = write_text_work(tmp_path, backbone, glue_lengths("cola"), batch_size=4, steps=3)
    config = train_config(str(backbone), work, shape("tiny"), str(tmp_path / "run"), 3)
    dataset = open_run(config, work.data_dir, ("train",)).datasets["train"]
    assert len(dataset) == 4 * POOL_BATCHES
    batches = StepBatches(dataset.indices, 4, work.seed, dataset.source_lengths)
    for step, batch in enumerate(TextWork.load(work.save()).batches):
        lengths = dataset.source_lengths(batches.rows(step))
        assert [len(ids) for ids in batch["input_ids"]] == lengths
    assert work.mean_length == pytest.approx(np.mean(glue_lengths("cola")), rel=0.1)
