"""Exact match and the soft accuracy of few answers."""

import pytest

from dept_vl.evaluators import Reference, evaluate
from dept_vl.evaluators.answers import soft_accuracy


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("cat", ["cat"], 1.0),
        ("dog", ["cat"], 0.0),
        ("The Cat!", ["cat"], 1.0),
        ("2", ["two"], 1.0),
        # Two people: either of two different answers is as common as the other.
        ("cat", ["cat", "dog"], 1.0),
        ("cat", ["cat", "cat"], 1.0),
        # Three: two of three is the most there is, one of them gets half of it.
        ("cat", ["cat", "cat", "dog"], 1.0),
        ("dog", ["cat", "cat", "dog"], 0.5),
        ("dog", ["cat", "cat", "cat"], 0.0),
        ("dog", ["cat", "cat", "cat", "dog"], 1 / 3),
        # Ten, of whom three and more agree: min(1, matches / 3) of Antol et al. 2015.
        ("red", ["red"] + ["blue"] * 9, 1 / 3),
        ("red", ["red"] * 2 + ["blue"] * 8, 2 / 3),
        ("red", ["red"] * 3 + ["blue"] * 7, 1.0),
    ],
)
def test_soft_accuracy_of_an_answer(prediction, answers, expected):
    assert soft_accuracy(prediction, answers) == pytest.approx(expected)


def test_the_most_common_answer_always_reaches_100():
    references = [Reference(["a cat"]), Reference(["dog", "cup"]), Reference(["x", "y", "z"])]
    assert evaluate(["vqa-soft-accuracy"], ["cat", "cup", "z"], references) == {"vqa_soft_accuracy": 100.0}


def test_exact_match_is_with_any_reference_once_both_are_normalised():
    references = [Reference(["cat"]), Reference(["dog", "a puppy"]), Reference(["two"]), Reference(["red"])]
    assert evaluate(["exact-match"], ["Cat.", "puppy", "2", "blue"], references) == {"exact_match": 75.0}
