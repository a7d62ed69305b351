"""The rows of several tasks: how often each task comes, which rows, and what their batches hold."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from dept_vl.data.collator import IGNORE_INDEX, join_batches
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.manifest import open_split
from dept_vl.data.mixture import MixDataset, MixedBatches, OneTaskBatches
from dept_vl.data.sampler import BatchRequest, StepBatches, TrainRequests
from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import DataError
from dept_vl.tasks import get_task
from dept_vl.tasks.mixture import sampling_rates

SIZES = (40, 400, 160)
FIRST = (0, 40, 440, 600)
ROWS = [np.arange(start, stop) for start, stop in pairwise(FIRST)]


def task_of(row: int) -> int:
    return int(np.searchsorted(FIRST, row, side="right")) - 1


def one_task(temperature: float, seed: int = 0, batch_size: int = 8) -> OneTaskBatches:
    return OneTaskBatches([StepBatches(rows, batch_size, seed) for rows in ROWS], rates(temperature), seed)


def rates(temperature: float) -> list[float]:
    return sampling_rates(SIZES, temperature)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_steps_of_one_task_come_as_often_as_their_rates_say(temperature):
    """Counts of 20,000 steps against p_k: a chi-square of 2 degrees of freedom exceeds 13.8 once in a thousand."""
    steps, batches = 20_000, one_task(temperature)
    counts = np.bincount([batches.task(step) for step in range(steps)], minlength=3)
    expected = steps * np.asarray(rates(temperature))
    assert ((counts - expected) ** 2 / expected).sum() < 13.8
    uniform = np.full(3, steps / 3)
    assert ((counts - uniform) ** 2 / uniform).sum() > 100  # it can tell other rates apart


def test_a_step_of_one_task_has_rows_of_that_task_alone():
    batches = one_task(1.0)
    for step in range(50):
        assert {task_of(row) for row in batches.rows(step)} == {batches.task(step)}


def test_rows_of_one_task_steps_come_in_whole_passes():
    """The visits of a task are the steps of that task trained alone, whatever lies between them."""
    batches, alone = one_task(10.0), StepBatches(ROWS[0], 8, 0)
    visits = [batches.rows(step) for step in range(3_000) if batches.task(step) == 0]
    assert len(visits) > 500
    assert visits == [alone.rows(visit) for visit in range(len(visits))]


def shuffled(temperature: float) -> OneTaskBatches:
    return OneTaskBatches([StepBatches(rows, 8, 0) for rows in ROWS], rates(temperature), 0, epoch_steps=75)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_a_shuffled_epoch_has_of_each_task_its_share_of_steps(temperature):
    batches = shuffled(temperature)
    orders = [[batches.task(75 * epoch + step) for step in range(75)] for epoch in range(3)]
    for order in orders:
        assert np.abs(np.bincount(order, minlength=3) - 75 * np.asarray(rates(temperature))).max() <= 1
    assert orders[0] != orders[1]
    visits = [batches.rows(step) for step in range(600) if batches.task(step) == 1]
    alone = StepBatches(ROWS[1], 8, 0)
    assert visits == [alone.rows(visit) for visit in range(len(visits))]


MAKERS = [one_task, shuffled, lambda t: MixedBatches(ROWS, rates(t), 8, 0)]


@pytest.mark.parametrize("make", MAKERS)
def test_a_step_is_the_same_whatever_was_asked_before(make):
    straight = make(2.0)
    expected = [straight.rows(step) for step in range(2_500)]
    fresh = make(2.0)
    for step in (2_499, 0, 1_024, 1_023, 2_048, 7):
        assert fresh.rows(step) == expected[step]


def test_another_seed_is_another_order():
    assert [one_task(1.0, seed=1).task(step) for step in range(40)] != [one_task(1.0).task(step) for step in range(40)]


def test_in_proportion_to_size_an_epoch_is_every_row_once():
    batches = MixedBatches(ROWS, rates(1.0), 8, 0)
    assert batches.quotas == list(SIZES)
    seen = Counter(row for step in range(batches.steps_per_epoch) for row in batches.rows(step))
    assert len(seen) == 600
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_mixed_epochs_have_each_task_as_often_as_its_rate_says(temperature):
    batches = MixedBatches(ROWS, rates(temperature), 8, 0)
    for epoch in range(4):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        counts = np.bincount([task_of(row) for step in steps for row in batches.rows(step)], minlength=3)
        assert np.abs(counts - 600 * np.asarray(rates(temperature))).max() <= 1


def test_a_task_drawn_more_often_than_it_has_rows_shows_all_alike():
    batches = MixedBatches(ROWS, rates(10.0), 8, 0)
    assert batches.quotas[0] > 3 * SIZES[0]
    seen = Counter(row for step in range(4 * batches.steps_per_epoch) for row in batches.rows(step) if row < SIZES[0])
    assert max(seen.values()) - min(seen.values()) <= 1
    large = [row for step in range(4 * batches.steps_per_epoch) for row in batches.rows(step) if task_of(row) == 1]
    assert max(Counter(large).values()) - min(Counter(large).values()) <= 1


def test_the_rarest_task_has_a_row_an_epoch():
    batches = MixedBatches(ROWS, [1e-9, 0.6, 0.4 - 1e-9], 8, 0)
    assert batches.quotas == [1, 359, 240]


@pytest.mark.parametrize("make", MAKERS)
def test_processes_and_passes_share_the_rows_of_one_step(make):
    batches = make(2.0)
    for step in range(20):
        cut = [
            request.indices
            for process in range(2)
            for request in TrainRequests(
                make(2.0), step, step + 1, process_index=process, num_processes=2, accumulation_steps=2
            )
        ]
        assert sorted(row for part in cut for row in part) == sorted(batches.rows(step))
        assert len({len(part) for part in cut}) == 1


@pytest.fixture(scope="module")
def codec(t5_folder) -> TextCodec:
    return TextCodec(AutoTokenizer.from_pretrained(t5_folder))


def datasets(mix_data, codec, names=("cola", "mnli", "squad")) -> list[TaskDataset]:
    tasks = [get_task(name).under("fixed") for name in names]
    return [
        TaskDataset(
            open_split(mix_data, task, "train"), task, codec, max_source_length=16, max_target_length=4, seed=0,
            labels="drawn",
        )
        for task in tasks
    ]  # fmt: skip


def mixed(mix_data, codec, *, batches="mixed") -> MixDataset:
    own = datasets(mix_data, codec)
    return MixDataset(own, sampling_rates([len(one) for one in own]), 0, batches=batches)


def test_a_mixed_batch_holds_each_row_as_its_task_makes_it_alone(mix_data, codec):
    dataset, own = mixed(mix_data, codec), datasets(mix_data, codec)
    rows = (70, 3, 30, 0, 24, 65)  # of 24 + 40 + 16
    batch = dataset.batch(BatchRequest(5, rows, True, 6))
    assert batch.task_ids.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [(0, 3), (0, 0), (1, 6), (1, 0), (2, 6), (2, 1)]
    for place, (task, row) in enumerate(expected):
        alone = own[task].batch(BatchRequest(5, (row,), True, 1))
        length, target = alone.input_ids.shape[1], alone.labels.shape[1]
        assert batch.input_ids[place, :length].tolist() == alone.input_ids[0].tolist()
        assert batch.attention_mask[place].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
        assert batch.labels[place].tolist() == alone.labels[0].tolist() + [IGNORE_INDEX] * (
            batch.labels.shape[1] - target
        )
        assert batch.example_ids[place] == alone.example_ids[0]


@pytest.mark.parametrize("batches", ["mixed", "one-task", "shuffled"])
def test_batches_do_not_depend_on_the_loader_processes(mix_data, codec, batches):
    dataset = mixed(mix_data, codec, batches=batches)

    def read(num_workers):
        requests = TrainRequests(dataset.train_batches(8, 3, by_length=True), 2, 8)
        return list(DataLoader(dataset, batch_size=None, sampler=requests, num_workers=num_workers))

    for (ours, batch), (theirs, other) in zip(read(0), read(2), strict=True):
        assert ours == theirs
        assert torch.equal(batch.input_ids, other.input_ids)
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.task_ids, other.task_ids)


def test_steps_of_one_task_are_no_larger_than_the_task(mix_data, codec):
    dataset = mixed(mix_data, codec, batches="one-task")
    assert dataset.fewest_rows == 16
    sizes = {len(dataset.train_batches(32, 0, by_length=False).rows(step)) for step in range(60)}
    assert sizes == {24, 32, 16}
    assert mixed(mix_data, codec).fewest_rows == 80


def test_grouping_by_length_keeps_each_tasks_share_of_a_step_and_pads_less(mix_data, codec):
    dataset = mixed(mix_data, codec)

    def padding_and_shares(by_length):
        batches, padding, shares = dataset.train_batches(16, 0, by_length=by_length), 0, []
        for step in range(5):
            numbers = np.asarray(batches.rows(step))
            shares.append(np.bincount(np.searchsorted([24, 64], numbers, side="right"), minlength=3))
            for task in range(3):
                own = numbers[np.searchsorted([24, 64], numbers, side="right") == task]
                lengths = dataset.source_lengths(own.tolist())
                padding += sum(max(lengths, default=0) - length for length in lengths)
        return padding, np.asarray(shares)

    grouped, shares = padding_and_shares(True)
    plain, _ = padding_and_shares(False)
    assert grouped < 0.6 * plain
    assert np.abs(shares - 16 * np.asarray([24, 40, 16]) / 80).max() <= 1.5


def test_batches_with_other_numbers_of_visual_tokens_are_not_joined(mix_data, codec):
    own = datasets(mix_data, codec)
    batches = [one.batch(BatchRequest(0, (0,), True, 1)) for one in own[:2]]
    batches = [replace(one, visual_features=torch.zeros(1, n, 6)) for one, n in zip(batches, (4, 8), strict=True)]
    with pytest.raises(DataError, match=r"\(4, 6\), \(8, 6\).*set mix\.batches=one-task"):
        join_batches(batches, 0)


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("batches", ["mixed", "one-task", "shuffled"])
def test_rows_of_an_image_of_one_task_stand_together(mix_data, codec, batches, by_length):
    own = datasets(mix_data, codec)
    keys = [np.random.default_rng(place).integers(0, 8, len(one)) for place, one in enumerate(own)]
    for one, images in zip(own, keys, strict=True):
        one.rows_per_image, one._image_keys = 4, images
    dataset = MixDataset(own, [0.3, 0.5, 0.2], codec.pad_token_id, batches=batches)
    assert len(set(dataset.image_keys(range(80)).tolist())) == sum(len(set(images)) for images in keys)
    alone = mixed(mix_data, codec, batches=batches).train_batches(16, 0, by_length=by_length)

    def images(steps):
        return np.mean([len(set(dataset.image_keys(steps.rows(step)).tolist())) for step in range(20)])

    assert images(dataset.train_batches(16, 0, by_length=by_length)) < 0.8 * images(alone)
