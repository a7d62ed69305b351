"""Scores of text tasks, against the released code's, scikit-learn's and scipy's."""

import json
import re
import string
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from dept_vl.errors import DataError
from dept_vl.evaluators import Reference, evaluate
from dept_vl.reports.text import format_score

GOLDENS = json.loads((Path(__file__).parents[1] / "data" / "evaluators" / "text_goldens.json").read_text())
NAMES = {
    "binary": ("accuracy", "f1", "matthews-correlation"),
    "cb": ("cb",),
    "similarity": ("pearson", "spearman"),
    "squad": ("squad",),
    "constant": ("pearson",),
}


def references(golds, groups=None):
    groups = groups or [None] * len(golds)
    return [
        Reference([gold] if isinstance(gold, str) else gold, group=group)
        for gold, group in zip(golds, groups, strict=True)
    ]


@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case["kind"])
def test_scores_equal_the_released_codes(case):
    scores = evaluate(NAMES[case["kind"]], case["predictions"], references(case["golds"]))
    for name, expected in case["scores"].items():
        factor = 1 if name.startswith("squad") else 100  # the released code multiplies all scores
        assert scores[name] * factor == pytest.approx(expected, rel=1e-12), name


def test_invalid_predictions_are_counted_where_there_is_a_label_set():
    scores = evaluate(["accuracy"], ["0", "", "01", "1"], references(["0", "1", "1", "1"]), label_set=("0", "1"))
    assert scores == {"accuracy": 0.5, "invalid": 0.5}
    assert "invalid" not in evaluate(["squad"], ["x"], references(["x"]))


def test_f1_counts_an_invalid_prediction_as_the_wrong_class():
    golds, predictions = ["1", "1", "0", "0"], ["1", "maybe", "maybe", "0"]
    assert evaluate(["f1"], predictions, references(golds)) == {"f1": f1_score([1, 1, 0, 0], [1, 0, 1, 0])}
    assert evaluate(["f1"], ["0", "0"], references(["0", "0"])) == {"f1": 0.0}
    with pytest.raises(DataError, match='labels "0" and "1", found the reference \'2\''):
        evaluate(["f1"], ["1"], references(["2"]))


def test_matthews_correlation_takes_an_invalid_prediction_as_a_third_class():
    golds, predictions = ["1", "1", "0", "0", "1"], ["1", "maybe", "0", "0", "0"]
    found = evaluate(["matthews-correlation"], predictions, references(golds))["matthews_correlation"]
    assert found == pytest.approx(matthews_corrcoef([1, 1, 0, 0, 1], [1, 2, 0, 0, 0]))


def test_an_unreadable_number_counts_as_minus_one():
    golds, predictions = ["1.0", "2.0", "4.0", "3.0"], ["1.2", "two", "4.4", "nan"]
    numbers = [1.2, -1.0, 4.4, -1.0]
    scores = evaluate(["pearson", "spearman"], predictions, references(golds))
    assert scores["pearson"] == pytest.approx(pearsonr([1, 2, 4, 3], numbers)[0])
    assert scores["spearman"] == pytest.approx(spearmanr([1, 2, 4, 3], numbers)[0])


def test_an_undefined_correlation_is_0():
    assert evaluate(["pearson"], ["1.0", "1.0"], references(["1.0", "2.0"])) == {"pearson": 0.0}
    assert evaluate(["spearman"], ["1.0"], references(["1.0"])) == {"spearman": 0.0}
    with pytest.raises(DataError, match="reference 'high' is not a number"):
        evaluate(["pearson"], ["1.0"], references(["high"]))


@pytest.mark.parametrize("seed", range(20))
def test_random_labels_score_as_scikit_learn_scores_them(seed):
    rng = np.random.default_rng(seed)
    size, classes = int(rng.integers(2, 60)), int(rng.integers(2, 5))
    golds = [str(label) for label in rng.integers(0, classes, size)]
    predictions = [gold if rng.random() < 0.5 else str(rng.integers(0, classes + 1)) for gold in golds]
    scores = evaluate(["matthews-correlation", "cb"], predictions, references(golds))
    macro = f1_score(golds, predictions, labels=["0", "1", "2"], average="macro", zero_division=0.0)
    assert scores["matthews_correlation"] == pytest.approx(matthews_corrcoef(golds, predictions), abs=1e-15)
    assert scores["f1_macro"] == pytest.approx(macro, abs=1e-15)
    assert scores["accuracy"] == accuracy_score(golds, predictions)


@pytest.mark.parametrize("seed", range(20))
def test_random_numbers_correlate_as_scipy_correlates_them(seed):
    rng = np.random.default_rng(seed)
    golds = np.round(rng.normal(size=int(rng.integers(3, 60))), int(rng.integers(0, 3)))  # with ties
    numbers = np.round(golds * rng.normal() + rng.normal(size=len(golds)) + 1e3 * rng.integers(0, 2), 1)
    scores = evaluate(["pearson", "spearman"], [str(n) for n in numbers], references([str(g) for g in golds]))
    assert scores["pearson"] == pytest.approx(pearsonr(golds, numbers)[0], abs=1e-12)
    assert scores["spearman"] == pytest.approx(spearmanr(golds, numbers)[0], abs=1e-12)


def test_numbers_too_large_to_square_correlate_without_a_warning(recwarn):
    numbers = ["1e300", "-1e300", "2", "5e299"]
    expected = pearsonr([1, 2, 3, 4], [float(n) for n in numbers])[0]
    assert evaluate(["pearson"], numbers, references(["1", "2", "3", "4"]))["pearson"] == pytest.approx(expected)
    assert evaluate(["pearson"], ["1e308", "1e308", "-1e308"], references(["1", "2", "3"]))["pearson"] == 0.0
    assert not recwarn.list


def test_the_package_imports_neither_scikit_learn_nor_scipy():
    code = (
        "import sys; from dept_vl.evaluators import *; r = [Reference([x]) for x in '012']; "
        "evaluate(['accuracy', 'cb', 'matthews-correlation', 'pearson', 'spearman'], ['0', '2', '1'], r); "
        "print([m for m in ('sklearn', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_multirc_f1a_and_exact_match_over_questions():
    rng = np.random.default_rng(3)
    groups = [f"{n // 9}-{n // 3}" for n in range(90)]
    golds = [str(label) for label in rng.integers(0, 2, 90)]
    predictions = [gold if rng.random() < 0.8 else str(1 - int(gold)) for gold in golds]
    by_question = defaultdict(list)
    for group, gold, prediction in zip(groups, golds, predictions, strict=True):
        by_question[group].append((gold, prediction))
    exact = np.mean([all(gold == prediction for gold, prediction in pairs) for pairs in by_question.values()])
    scores = evaluate(["multirc"], predictions, references(golds, groups))
    assert scores == {"f1a": pytest.approx(f1_score(golds, predictions, pos_label="1")), "em": pytest.approx(exact)}
    torn = evaluate(["multirc"], predictions, references(golds))
    assert torn == {"f1a": scores["f1a"]}


def official_squad(predictions, golds):
    """SQuAD v1.1's script, written down again from its description: normalise, best gold, mean, percent."""

    def normalise(text):
        text = "".join(character for character in text.lower() if character not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    def f1(prediction, gold):
        common = sum((Counter(prediction) & Counter(gold)).values())
        if not common:
            return 0.0
        precision, recall = common / len(prediction), common / len(gold)
        return 2 * precision * recall / (precision + recall)

    pairs = [(normalise(p), [normalise(g) for g in several]) for p, several in zip(predictions, golds, strict=True)]
    exact = 100 * np.mean([any(p == g for g in several) for p, several in pairs])
    return exact, 100 * np.mean([max(f1(p, g) for g in several) for p, several in pairs])


def test_squad_equals_the_official_scripts_rules():
    rng = np.random.default_rng(4)
    words = ["the", "A", "Kell", "kell's", "U.S.", "3", "May,", "tea-pot", "(an)", "boat"]
    golds = [[" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(rng.integers(1, 4))] for _ in range(300)]
    predictions = [" ".join(rng.choice(words, rng.integers(0, 5))) for _ in golds]
    scores = evaluate(["squad"], predictions, references(golds))
    exact, f1 = official_squad(predictions, golds)
    assert scores["squad_em"] == pytest.approx(exact)
    assert scores["squad_f1"] == pytest.approx(f1)
    assert 0 < exact < f1


def test_squad_takes_the_best_of_the_golds():
    scores = evaluate(["squad"], ["the U.S."], references([["Kell", "US"]]))
    assert scores == {"squad_em": 100.0, "squad_f1": 100.0}


def test_a_label_has_one_reference():
    with pytest.raises(DataError, match="example None has 2 references; this score compares a label with one"):
        evaluate(["accuracy"], ["0"], references([["0", "1"]]))


def test_scores_are_printed_as_papers_print_them():
    assert format_score("matthews_correlation", 0.63794) == ("63.8", "x 100, as papers print it")
    assert format_score("squad_f1", 73.212) == ("73.2", "of 100")
