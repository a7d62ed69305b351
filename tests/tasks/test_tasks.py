from dataclasses import replace
from inspect import signature
from pkgutil import resolve_name

import pytest

from dept_vl.evaluators import EVALUATORS
from dept_vl.tasks import TASKS, Task, get_task


@pytest.mark.parametrize(
    ("name", "row", "source"),
    [
        ("vqa", {"question": "Where is he looking?"}, "vqa: Where is he looking?"),
        ("vqa", {"question": " What color is it? \n"}, "vqa: What color is it?"),
        ("coco", {"image_id": 42}, "caption:"),
    ],
)
def test_source_text(name, row, source):
    assert get_task(name).template(row) == source


def test_every_evaluator_and_primary_metric_resolves():
    for task in TASKS.values():
        assert {*task.evaluators, *task.also_scored} <= set(EVALUATORS)
    assert get_task("vqa").primary_metric == "vqa_accuracy"
    assert get_task("coco").primary_metric == "CIDEr"


def test_split_sizes_add_up_to_the_official_files():
    # VQA v2: 443,757 + 214,354 questions; COCO 2014: 82,783 + 40,504 images, 414,113 + 202,654 captions.
    vqa, coco = get_task("vqa").split_sizes, get_task("coco").split_sizes
    assert sum(size.rows for size in vqa.values()) == 443_757 + 214_354
    assert sum(size.images for size in coco.values()) == 82_783 + 40_504
    assert coco["train"].rows + 25_010 + 25_010 == 414_113 + 202_654


def test_a_name_that_is_no_name_fails_at_once():
    with pytest.raises(ValueError, match="task name 'VQA v2' must match"):
        Task("VQA v2", str, (), "x", 1, 1, "")


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_functions_a_task_names_exist_and_take_what_they_are_given(task):
    assert list(signature(resolve_name(task.converter)).parameters)[:3] == ["task", "raw", "out"]
    if task.reference_reader:
        assert set(signature(resolve_name(task.reference_reader)).parameters) == set(task.reference_files)


def test_reference_files_without_a_reader_fail_at_once():
    with pytest.raises(ValueError, match="'vqa': reference_files and reference_reader come together"):
        replace(get_task("vqa"), reference_reader=None)
