"""McNemar's test and the paired bootstrap, beside their definitions written out."""

import math
import random
from statistics import NormalDist

import pytest

from dept_vl.errors import DataError
from dept_vl.evaluators import EVALUATORS, EvaluationInput, Reference
from dept_vl.evaluators.paired import (
    Answered,
    bootstrap,
    compare_answers,
    interval,
    interval_of_mean,
    is_right_or_wrong,
    mcnemar,
    row_scores,
)


def answers(predictions, golds):
    return EvaluationInput(predictions, [Reference([gold]) for gold in golds])


def side(metric, predictions, golds, score):
    inputs = answers(predictions, golds)
    return Answered(score, row_scores(metric, inputs), (inputs,))


@pytest.mark.parametrize(("better", "worse"), [(10, 2), (2, 10), (5, 5), (1, 0), (40, 25), (0, 6)])
def test_mcnemar_is_the_sum_of_binomial_probabilities(better, worse):
    """Both tails of a fair coin, added up by hand."""
    number = better + worse
    tail = sum(math.comb(number, k) for k in range(min(better, worse) + 1)) / 2**number
    assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_answers_that_nowhere_differ_are_no_evidence():
    assert mcnemar(0, 0) == 1.0
    assert bootstrap([0.0] * 20, seed=0) == (1.0, 0.0, 0.0)


def loop_bootstrap(differences, draws):
    """Efron's bootstrap as a plain loop with Python's own generator."""
    generator, number = random.Random(0), len(differences)
    mean = sum(differences) / number
    found = sorted(sum(generator.choices(differences, k=number)) / number for _ in range(draws))
    as_far = sum(abs(one - mean) >= abs(mean) for one in found)
    return (1 + as_far) / (1 + draws), found[int(0.025 * draws)], found[int(0.975 * draws)]


@pytest.mark.parametrize("shift", [0.0, 0.12, 0.5])
def test_the_bootstrap_is_that_of_a_plain_loop(shift):
    generator = random.Random(1)
    differences = [generator.choice([-1.0, -0.3, 0.0, 0.0, 0.3, 1.0]) + shift for _ in range(150)]
    p, low, high = bootstrap(differences, seed=0)
    expected = loop_bootstrap(differences, 20_000)
    assert p == pytest.approx(expected[0], abs=0.015)
    assert (low, high) == pytest.approx(expected[1:], abs=0.01)
    assert bootstrap(differences, seed=0) == (p, low, high)


def test_its_interval_holds_the_true_difference_as_often_as_it_says():
    """Of 200 samples of 60 rows, the 95 % interval should hold the mean of the population in about 190."""
    generator, held = random.Random(3), 0
    for number in range(200):
        sample = [generator.gauss(0.2, 1.0) for _ in range(60)]
        _, low, high = bootstrap(sample, seed=number)
        held += low <= 0.2 <= high
    assert 178 <= held <= 199


def test_labels_are_tested_by_mcnemar():
    golds = ["1", "0"] * 10
    right, wrong = list(golds), ["0"] * 20
    found = compare_answers("accuracy", side("accuracy", right, golds, 1.0), side("accuracy", wrong, golds, 0.5))
    assert (found.test, found.better, found.worse, found.low) == ("mcnemar", 10, 0, None)
    assert found.p == pytest.approx(2 / 2**10)
    assert found.difference == 0.5


def test_matthews_correlation_is_tested_by_right_and_wrong_answers():
    golds = ["1", "0", "1", "0"]
    ours = side("matthews_correlation", golds, golds, 1.0)
    theirs = side("matthews_correlation", ["1", "0", "1", "1"], golds, 0.577)
    found = compare_answers("matthews_correlation", ours, theirs)
    assert (found.test, found.better, found.worse, found.difference) == ("mcnemar", 1, 0, pytest.approx(0.423))


def test_scores_between_are_tested_by_the_bootstrap():
    golds = [f"a b c{number}" for number in range(40)]
    inputs = [answers(texts, golds) for texts in ([f"a b c{n}" for n in range(40)], [f"a b d{n}" for n in range(40)])]
    ours, theirs = (
        Answered(score, row_scores("ROUGE-L", one), (one,)) for score, one in zip((1, 0.7), inputs, strict=True)
    )
    found = compare_answers("ROUGE-L", ours, theirs)
    assert found.test == "bootstrap"
    assert (found.better, found.worse) == (40, 0)
    assert found.p < 0.001


def test_a_correlation_is_computed_anew_for_every_draw():
    generator = random.Random(2)
    golds = [f"{generator.uniform(0, 5):.1f}" for _ in range(60)]
    near = [f"{float(gold) + generator.gauss(0, 0.2):.1f}" for gold in golds]
    far = [f"{generator.uniform(0, 5):.1f}" for _ in range(60)]
    found = compare_answers("pearson", side("pearson", near, golds, 0.98), side("pearson", far, golds, 0.0))
    assert (found.test, found.better) == ("bootstrap", None)
    assert found.p < 0.01
    assert 0.5 < found.low < 0.98 < found.high < 1.4
    same = compare_answers("pearson", side("pearson", near, golds, 0.98), side("pearson", near, golds, 0.98))
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)


def test_several_seeds_are_tested_by_the_mean_of_each_rows_scores():
    golds = ["1"] * 8
    inputs = answers(golds, golds)
    ours, theirs = Answered(0.9, [1.0, 0.5] * 4, (inputs, inputs)), Answered(0.4, [0.5, 0.0] * 4, (inputs, inputs))
    found = compare_answers("accuracy", ours, theirs)
    assert (found.test, found.better, found.worse, found.low, found.high) == ("bootstrap", 8, 0, 0.5, 0.5)
    assert found.p < 0.001


def test_other_numbers_of_rows_are_refused():
    one, two = side("accuracy", ["1"], ["1"], 1.0), side("accuracy", ["1", "0"], ["1", "1"], 0.5)
    with pytest.raises(DataError, match=r"different numbers of rows cannot be compared: \[1, 2\]"):
        compare_answers("accuracy", one, two)


def test_right_or_wrong_is_zero_and_one_other_value():
    assert is_right_or_wrong([0.0, 100.0, 0.0])
    assert is_right_or_wrong([])
    assert not is_right_or_wrong([0.0, 30.0, 100.0])


def wilson(right, rows):
    """Wilson's interval, written out."""
    z, share = NormalDist().inv_cdf(0.975), right / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return middle - half, middle + half


@pytest.mark.parametrize(("right", "rows"), [(0, 5), (5, 5), (37, 40), (1, 1)])
def test_the_interval_of_rows_that_are_right_or_wrong_is_wilsons(right, rows):
    values = [100.0] * right + [0.0] * (rows - right)
    expected = [100 * end for end in wilson(right, rows)]
    assert interval_of_mean(values, 100.0) == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_other_rows_is_the_bootstraps():
    values = [0.0, 30.0, 60.0, 90.0, 100.0] * 8
    assert interval_of_mean(values, 100.0) == bootstrap(values, 0)[1:]


def test_the_interval_of_a_score_is_over_its_rows_or_computed_anew():
    golds = [Reference([text]) for text in ["1", "0"] * 20]
    inputs = EvaluationInput(["1"] * 10 + ["0"] * 30, golds)
    each = row_scores("accuracy", inputs)
    accuracy = sum(each) / len(each)
    assert interval("accuracy", Answered(accuracy, each, (inputs,))) == bootstrap(each, 0)[1:]
    score = EVALUATORS["matthews-correlation"].compute(inputs)["matthews_correlation"]
    low, high = interval("matthews_correlation", Answered(score, each, (inputs,)))
    assert low < score < high
    assert (low, high) != bootstrap(each, 0)[1:]
    assert interval("em", Answered(0.5, None, (inputs,))) is None
