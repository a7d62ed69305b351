from collections import Counter

import numpy as np
import pytest

from dept_vl.data.sampler import (
    POOL_BATCHES,
    ImageGrouping,
    StepBatches,
    TrainRequests,
    evaluation_requests,
    group_by_image,
)

LENGTHS = np.random.default_rng(0).integers(3, 40, size=1000)


def lengths_of(rows):
    return LENGTHS[list(rows)]


@pytest.mark.parametrize("lengths", [None, lengths_of])
def test_an_epoch_shows_every_row_once(lengths):
    batches = StepBatches(np.arange(1000), 10, seed=0, lengths=lengths)
    seen = Counter(row for step in range(batches.steps_per_epoch) for row in batches.rows(step))
    assert set(seen.values()) == {1}
    assert len(seen) == 1000


@pytest.mark.parametrize("lengths", [None, lengths_of])
def test_a_step_is_the_same_whatever_was_asked_before(lengths):
    straight = StepBatches(np.arange(1000), 7, seed=1, lengths=lengths)
    expected = [straight.rows(step) for step in range(300)]
    fresh = StepBatches(np.arange(1000), 7, seed=1, lengths=lengths)
    for step in (299, 0, 143, 142, 250):
        assert fresh.rows(step) == expected[step]


def test_epochs_and_seeds_differ():
    batches = StepBatches(np.arange(1000), 1000, seed=0)
    assert batches.rows(0) != batches.rows(1)
    assert batches.rows(0) != StepBatches(np.arange(1000), 1000, seed=1).rows(0)


def test_grouping_pads_less():
    def padding(lengths):
        batches = StepBatches(np.arange(1000), 10, seed=0, lengths=lengths)
        return sum(LENGTHS[batches.rows(s)].max() * 10 - LENGTHS[batches.rows(s)].sum() for s in range(100))

    assert padding(lengths_of) < 0.35 * padding(None)


def test_grouped_batches_are_not_in_order_of_length():
    batches = StepBatches(np.arange(1000), 10, seed=0, lengths=lengths_of)
    means = [LENGTHS[batches.rows(step)].mean() for step in range(POOL_BATCHES)]
    assert means != sorted(means)


def test_only_given_rows_are_drawn():
    rows = np.arange(0, 1000, 3)
    batches = StepBatches(rows, 10, seed=0, lengths=lengths_of)
    assert {row for step in range(33) for row in batches.rows(step)} <= set(rows.tolist())


def test_a_split_smaller_than_a_batch_is_one_batch():
    batches = StepBatches(np.arange(3), 10, seed=0)
    assert sorted(batches.rows(5)) == [0, 1, 2]


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 3)])
def test_processes_and_accumulation_share_a_step_without_overlap(processes, accumulation):
    batches = StepBatches(np.arange(1000), 24, seed=0, lengths=lengths_of)
    streams = [
        list(
            TrainRequests(batches, 3, 6, process_index=index, num_processes=processes, accumulation_steps=accumulation)
        )
        for index in range(processes)
    ]
    for step in range(3, 6):
        parts = [request for stream in streams for request in stream if request.step == step]
        assert sorted(row for part in parts for row in part.indices) == sorted(batches.rows(step))
        assert len(parts) == processes * accumulation
        assert sum(part.is_last_of_step for part in parts) == processes
        assert {part.global_rows for part in parts} == {24}
        assert all(part.indices for part in parts)


def test_evaluation_counts_every_row_once_over_processes():
    rows = np.arange(0, 101)
    shares = [
        evaluation_requests(rows, lengths_of(rows), 8, process_index=index, num_processes=3) for index in range(3)
    ]
    seen = [row for share in shares for request in share for row in request.indices]
    assert sorted(seen) == rows.tolist()


def test_evaluation_starts_with_the_longest():
    rows = np.arange(50)
    first, *_, last = evaluation_requests(rows, lengths_of(rows), 8)
    assert LENGTHS[list(first.indices)].min() >= LENGTHS[list(last.indices)].max()


def test_evaluating_nothing_makes_no_batches():
    assert evaluation_requests(np.arange(0), [], 8) == []


IMAGES = np.random.default_rng(1).integers(0, 190, size=1000)
"""About five rows an image."""


def images_of(rows):
    return IMAGES[list(rows)]


def by_image(most=5, **settings):
    return StepBatches(np.arange(1000), 10, seed=0, images=ImageGrouping(images_of, most), **settings)


@pytest.mark.parametrize("lengths", [None, lengths_of])
def test_rows_of_an_image_stand_together_and_every_row_comes_once_an_epoch(lengths):
    batches, alone = by_image(lengths=lengths), StepBatches(np.arange(1000), 10, seed=0, lengths=lengths)
    steps = [batches.rows(step) for step in range(batches.steps_per_epoch)]
    assert sorted(row for rows in steps for row in rows) == list(range(1000))
    images = [len(set(IMAGES[rows])) for rows in steps]
    assert np.mean(images) < 0.45 * np.mean([len(set(IMAGES[alone.rows(step)])) for step in range(100)])
    for rows in steps:
        assert np.count_nonzero(np.diff(IMAGES[rows])) < len(set(IMAGES[rows])) + 2  # hardly one comes back


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_rows_of_an_image_stand_together_than_asked_for(most):
    groups = group_by_image(IMAGES, most)
    assert np.bincount(groups).max() == most
    assert all(len(set(IMAGES[groups == group])) == 1 for group in range(groups.max() + 1))
    assert by_image(1).rows(3) == StepBatches(np.arange(1000), 10, seed=0).rows(3)


def test_groups_stand_where_their_first_rows_do():
    assert group_by_image(np.array([7, 3, 7, 5, 3, 7])).tolist() == [0, 1, 0, 2, 1, 0]
    assert group_by_image(np.array([7, 3, 7, 5, 3, 7]), 2).tolist() == [0, 1, 0, 2, 1, 3]
    assert group_by_image(np.arange(0)).tolist() == []


@pytest.mark.parametrize("lengths", [None, lengths_of])
def test_a_step_by_image_is_the_same_whatever_was_asked_before(lengths):
    expected = [by_image(lengths=lengths).rows(step) for step in (0, 42, 199, 143)]
    fresh = by_image(lengths=lengths)
    assert [fresh.rows(step) for step in (143, 199, 0, 42)] == [expected[place] for place in (3, 2, 0, 1)]
    assert expected[0] != StepBatches(np.arange(1000), 10, 1, lengths, ImageGrouping(images_of, 5)).rows(0)


def test_grouping_by_image_and_length_still_pads_less():
    def padding(batches):
        return sum(LENGTHS[batches.rows(s)].max() * 10 - LENGTHS[batches.rows(s)].sum() for s in range(100))

    assert padding(by_image(2, lengths=lengths_of)) < 0.8 * padding(by_image(2))


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (1, 4), (2, 2), (4, 3)])
def test_processes_and_passes_keep_neighbours_together(processes, accumulation):
    batches = StepBatches(np.arange(1000), 24, seed=0)
    parts = [
        request.indices
        for index in range(processes)
        for request in TrainRequests(
            batches, 3, 4, process_index=index, num_processes=processes, accumulation_steps=accumulation,
            keeps_neighbours=True,
        )
    ]  # fmt: skip
    assert [row for part in parts for row in part] == batches.rows(3)
    assert {len(part) for part in parts} == {24 // processes // accumulation}


def test_at_evaluation_an_images_rows_are_neighbours_and_processes_share_batches():
    rows = np.arange(0, 1000, 2)
    whole = evaluation_requests(rows, lengths_of(rows), 8, images=images_of(rows))
    order = [row for request in whole for row in request.indices]
    assert sorted(order) == rows.tolist()
    assert np.count_nonzero(np.diff(IMAGES[order])) == len(set(IMAGES[order])) - 1
    longest = [LENGTHS[rows][IMAGES[rows] == image].max() for image in dict.fromkeys(IMAGES[order])]
    assert longest == sorted(longest, reverse=True)
    shares = [
        evaluation_requests(rows, lengths_of(rows), 8, images=images_of(rows), process_index=index, num_processes=3)
        for index in range(3)
    ]
    assert sorted(request.indices for share in shares for request in share) == sorted(one.indices for one in whole)
    assert evaluation_requests(np.arange(0), [], 8, images=np.arange(0)) == []
