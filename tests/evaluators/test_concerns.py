"""What a score assumes and references do not keep is said before there is a prediction, with what fits."""

import logging
import math

import pytest

from dept_vl.errors import DataError
from dept_vl.evaluators import EVALUATORS, Reference, concerns, evaluate, fitting, warn_of


def texts(*several):
    return [Reference([one] if isinstance(one, str) else list(one)) for one in several]


FEW = texts(*[("cat",), ("dog", "cup")] * 3)
ALIKE = ["a b a"] * 4
CASES = [
    # evaluator, references, what is said, what fits
    ("vqa-accuracy", texts("cat", "dog", "cup"), "every question has 1 answer", "exact-match"),
    ("vqa-accuracy-legacy-vlt5", texts("cat", "dog", "cup"), "every question has 1 answer", "exact-match"),
    ("vqa-accuracy", FEW, "every question has fewer than 4 answers", "vqa-soft-accuracy"),
    ("vqa-accuracy", [*texts(("cat",) * 3), *texts(("a",) * 10) * 3], "1 of 4 questions has fewer", None),
    ("cider", texts("a cat"), "CIDEr of 1 image", "rouge-l"),
    ("cider", texts(*ALIKE), "No n-gram of theirs tells one image from another", "rouge-l"),
    ("cider", texts("a cat", "a dog"), "CIDEr of 2 images: its document frequencies", None),
    ("bleu", texts("a cat", "..."), "1 of 2 images has no reference with a word", None),
    ("matthews-correlation", texts("1", "1"), "every reference is '1'", "accuracy"),
    ("pearson", texts("1.0", "1.0"), "every reference is '1.0': a correlation is 0", "accuracy"),
    ("spearman", texts("3"), "every reference is '3'", "accuracy"),
    ("f1", texts("0", "0"), "no reference is '1'", "accuracy"),
    ("multirc", texts("0", "0"), "no reference is '1'", "accuracy"),
    ("cb", texts("0", "1"), "no reference is '2': f1_macro is at most 66.7 of 100", None),
    ("squad", texts("the", "a"), "every question has only golds of articles", "exact-match"),
]


@pytest.mark.parametrize(("name", "references", "says", "fits"), CASES, ids=[f"{c[0]}: {c[2]}" for c in CASES])
def test_it_is_said_and_what_fits_is_named(name, references, says, fits, caplog):
    found = concerns([name], references)
    (concern,) = found[name]
    assert says in concern.text
    assert concern.instead == fits
    assert fitting(found) == ([fits] if fits else [])
    with caplog.at_level(logging.WARNING):
        warn_of(found, "val")
    assert caplog.text.count(f"val: {name}: ") == 1
    assert (f"; {fits} fits" in caplog.text) == bool(fits)


@pytest.mark.parametrize(("name", "references", "says", "fits"), CASES, ids=[f"{c[0]}: {c[2]}" for c in CASES])
def test_what_is_said_is_so(name, references, says, fits):
    """Where another evaluator fits, no prediction of the references' own scores well; by the other one it does."""
    predictions = [reference.references[0] for reference in references]
    scores = evaluate([name], predictions, references)
    first = scores[next(iter(EVALUATORS[name].scores))]
    assert all(math.isfinite(score) for score in scores.values())
    if fits is not None and name != "squad":  # of squad, F1 alone is meant
        assert first < 25
        assert fits == "accuracy" or first == 0 or name.startswith("vqa")
    if fits is not None:
        other = evaluate([fits], predictions, references)
        assert max(other.values()) in (1.0, 100.0)


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("vqa-accuracy", texts(("cat",) * 10, ("dog",) * 4)),
        ("cider", texts(*(f"a cat {number}" for number in range(100)))),
        ("matthews-correlation", texts("0", "1")),
        ("pearson", texts("1", "2")),
        ("f1", texts("0", "1")),
        ("cb", texts("0", "1", "2")),
        ("squad", texts("a cat")),
        ("exact-match", texts("a cat")),
        ("vqa-soft-accuracy", texts("a cat")),
        ("accuracy", texts("1", "1")),
    ],
)
def test_references_that_fit_are_no_concern(name, references):
    assert concerns([name], references) == {name: []}


def test_answers_without_ids_of_their_own_are_a_concern(caplog):
    references = [Reference(["cat"] * 10, annotators=["{}"] * 10)]
    (concern,) = concerns(["vqa-accuracy"], references)["vqa-accuracy"]
    assert 'Give the answers of a question an "answer_id" each' in concern.text
    assert evaluate(["vqa-accuracy", "vqa-soft-accuracy"], ["cat"], references) == {
        "vqa_accuracy": 0.0, "vqa_soft_accuracy": 100.0,
    }  # fmt: skip
    assert "answer_id" in caplog.text


def test_two_evaluators_of_one_concern_share_a_line(caplog):
    evaluate(["vqa-accuracy", "vqa-accuracy-legacy-vlt5"], ["cat"], texts("cat"))
    assert len(caplog.records) == 1
    assert caplog.text.count("vqa-accuracy, vqa-accuracy-legacy-vlt5: every question") == 1


@pytest.mark.parametrize("name", ["cider", "bleu", "rouge-l"])
def test_references_without_any_word_are_refused_before_a_prediction(name):
    references = [Reference(["...", "!"], example_id=7), Reference(["?"], example_id=8)]
    with pytest.raises(DataError, match=r"no reference caption has a word, as those of image 7: '\.\.\.'"):
        concerns([name], references)
    with pytest.raises(DataError, match="has a word"):
        evaluate([name], ["a", "b"], references)


def test_an_image_without_a_word_in_its_references_scores_nothing_and_stops_nothing():
    references = texts("a red cat", "...", "two dogs run")
    scores = evaluate(["cider", "bleu", "rouge-l"], ["a red cat", "a cup", "two dogs run"], references)
    assert all(math.isfinite(score) and score > 0 for name, score in scores.items() if name != "BLEU-4")


@pytest.mark.parametrize("name", ["cider", "bleu", "rouge-l", "f1", "matthews-correlation", "pearson", "squad"])
def test_empty_predictions_score_a_number(name, recwarn):
    labels = {"f1": ("0", "1", "1"), "matthews-correlation": ("0", "1", "1"), "pearson": ("1", "2", "3")}
    references = texts(*labels.get(name, ("a red cat", "two dogs", "a cup")))
    scores = evaluate([name], ["", "", ""], references)
    assert all(math.isfinite(score) for score in scores.values())
    assert not recwarn.list
