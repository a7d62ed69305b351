"""Several tasks in one run: which they are, and how often each is drawn."""

import math

import pytest

from dept_vl.errors import ConfigError
from dept_vl.tasks.mixture import find_mix, is_mix, sampling_rates


def test_the_tasks_are_those_named_in_their_order_under_full_names():
    mix = find_mix("rte+cb+stsb")
    assert mix.name == "rte+superglue-cb+stsb"
    assert [task.name for task in mix.tasks] == ["rte", "superglue-cb", "stsb"]


def test_lengths_are_the_most_that_a_task_has():
    mix = find_mix("vqa+coco")
    assert (mix.max_source_length, mix.max_target_length) == (256, 40)
    assert mix.uses_images


def test_a_protocol_is_that_of_every_task_that_has_some():
    find_mix("rte+cola").check_protocol("paper")
    find_mix("rte+cola").check_protocol(None)
    with pytest.raises(ConfigError, match=r"'vqa' has no protocol 'paper'"):
        find_mix("vqa+coco").check_protocol("paper")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rte+cola+rte", "names the task 'rte' twice"),
        ("cb+superglue-cb", "names the task 'superglue-cb' twice"),
        ("rte+clola", "unknown task 'clola'; did you mean 'cola'"),
        ("rte+", "no task before or after"),
        ("rte++cola", "no task before or after"),
        ("rte+mine.yaml", "'mine.yaml' in 'rte\\+mine.yaml' declares a task of your own"),
    ],
)
def test_what_is_no_mix_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        find_mix(name)


def test_tasks_with_images_and_without_are_told_apart():
    with pytest.raises(ConfigError, match=r"tasks with images \(vqa, coco\) and without \(rte\)"):
        find_mix("vqa+rte+coco").check_alike()
    for name, uses_images in (("vqa+coco", True), ("rte+cola", False)):
        find_mix(name).check_alike()
        assert find_mix(name).uses_images == uses_images
    assert find_mix("rte+vqa").uses_images


def test_a_file_may_have_the_sign_in_its_name(tmp_path):
    path = tmp_path / "a+b.yaml"
    assert is_mix(str(path))
    path.write_text("name: mine\n")
    assert not is_mix(str(path))


@pytest.mark.parametrize(("temperature", "limit"), [(1.0, None), (10.0, None), (1.0, 3_000), (2.0, 100_000)])
def test_rates_are_the_formula(temperature, limit):
    """p_k = min(n_k, K)^(1/T) / sum, as a plain loop over GLUE's sizes."""
    sizes = [2_490, 67_349, 3_668, 5_749, 363_846, 392_702, 104_743, 8_551]
    total = sum(sizes)
    weights = [(min(size, limit or size) / total) ** (1 / temperature) for size in sizes]
    assert sampling_rates(sizes, temperature, limit) == pytest.approx([w / sum(weights) for w in weights], rel=1e-12)


def test_rates_go_from_proportional_to_equal():
    assert sampling_rates([30, 10], 1.0) == pytest.approx([0.75, 0.25])
    assert sampling_rates([30, 10], 1e9) == pytest.approx([0.5, 0.5])
    assert sampling_rates([10**6, 10], 1e-3) == [1.0, 0.0]
    assert math.fsum(sampling_rates([1, 2, 3], 0.1)) == pytest.approx(1.0)
