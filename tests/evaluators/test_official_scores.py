"""Scores of data sets with scripts of their own, against what those printed (tests/data/evaluators)."""

import json
from pathlib import Path

import pytest

from dept_vl.errors import DataError
from dept_vl.evaluators import (
    EVALUATORS,
    EvaluationInput,
    Reference,
    accuracy,
    cider,
    evaluate,
    exact_match,
    nlvr2,
    rouge_l,
    score_each,
    vizwiz_accuracy,
    vqa_soft_accuracy,
)

NLVR2_GOLDENS = Path(__file__).parents[1] / "data" / "evaluators" / "nlvr2_goldens.json"
GOLDENS = json.loads(
    (Path(__file__).parents[1] / "data" / "evaluators" / "official_goldens.json").read_text(encoding="utf-8")
)


def test_vizwiz_accuracies_are_those_of_its_script_to_the_last_digit():
    golden = GOLDENS["vizwiz"]
    predictions = {case["image"]: case["prediction"] for case in golden["cases"]}
    answers = {case["image"]: case["answers"] for case in golden["cases"]}
    assert vizwiz_accuracy(predictions, answers) == {"vizwiz_accuracy": golden["overall"]}
    inputs = EvaluationInput(list(predictions.values()), [Reference(texts) for texts in answers.values()])
    assert score_each(["vizwiz-accuracy"], inputs)["vizwiz_accuracy"] == [100 * one for one in golden["questions"]]


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Unanswerable.", ["unanswerable"] * 10, 100),  # equal answers or not, the prediction is normalised
        ("the cat", ["the cat"] * 10, 0),  # and the answers never are
        ("2", ["two"] * 10, 0),
        ("dont know", ["don’t know"] * 10, 100),
        ("don't know", ["don't know"] * 10, 100),
    ],
)
def test_vizwiz_normalises_predictions_alone(prediction, answers, expected):
    assert vizwiz_accuracy([prediction], [answers]) == {"vizwiz_accuracy": expected}


def test_vizwiz_counts_everybody_by_position_whatever_the_records_say():
    reference = Reference(["red"] * 10, annotators=["?"] * 10)
    assert vizwiz_accuracy(["red"], [reference]) == {"vizwiz_accuracy": 100}
    assert EVALUATORS["vizwiz-accuracy"].check_references([reference]) == []
    assert EVALUATORS["vqa-accuracy"].check_references([reference]) != []


def test_gqa_accuracy_is_that_of_its_script_by_both_kinds_of_types():
    golden = GOLDENS["gqa"]
    references = {
        name: Reference(
            [question["answer"]],
            answer_type=question["types"]["structural"],
            question_type=question["types"]["semantic"],
        )
        for name, question in golden["questions"].items()
    }
    predictions = {one["questionId"]: one["prediction"] for one in golden["predictions"]}
    scores = accuracy(predictions, references)
    assert {name: 100 * value for name, value in scores.items()} == pytest.approx(
        {
            "accuracy": golden["accuracy"],
            **{f"accuracy/{name}": value for name, value in golden["structural"].items()},
            **{f"accuracy/question_type/{name}": value for name, value in golden["semantic"].items()},
        },
        rel=1e-12,
    )


def test_scienceqa_accuracy_is_that_of_its_script_by_subject():
    golden = GOLDENS["scienceqa"]
    letters = {number: "ABCDE"[index] for number, index in golden["results"].items()}
    references = {
        number: Reference(["ABCDE"[problem["answer"]]], answer_type=problem["subject"])
        for number, problem in golden["problems"].items()
    }
    scores = accuracy(letters, references)
    assert {name: 100 * value for name, value in scores.items()} == pytest.approx(
        {
            "accuracy": golden["accuracy"],
            **{f"accuracy/{name}": value for name, value in golden["subjects"].items()},
        },
        rel=1e-12,
    )


def test_nlvr2_accuracy_and_consistency_are_those_of_its_script_to_the_last_digit():
    golden = json.loads(NLVR2_GOLDENS.read_text(encoding="utf-8"))
    references = {}
    for one in golden["examples"]:
        split, of_set, _, sentence = one["identifier"].split("-")
        references[one["identifier"]] = Reference([one["label"].lower()], group=f"{split}-{of_set}--{sentence}")
    for case in golden["cases"]:
        assert nlvr2(case["predictions"], references) == case["printed"]


def test_consistency_is_of_groups_and_refused_without_any():
    references = [Reference(["true"], group=group) for group in "aab"]
    assert nlvr2(["true", "false", "TRUE"], references) == {"accuracy": 2 / 3, "consistency": 0.5}
    with pytest.raises(DataError, match=r"example 7 has no group.*details: \{group: COLUMN\}"):
        nlvr2(["true"], [Reference(["true"], example_id=7)])
    (concern,) = EVALUATORS["nlvr2"].check_references([Reference(["true"], group="a")])
    assert "every group has one example" in concern.text


CAPTIONS = ["a cat sits", "two dogs run", "a red car"]
WRITTEN = [["a cat sits down", "the cat"], ["dogs run", "two dogs"], ["a car", "one red car"]]
DOMAINS = ["in-domain", "out-domain", "in-domain"]


@pytest.mark.parametrize("function", [cider, rouge_l], ids=["cider", "rouge-l"])
def test_caption_scores_of_a_domain_are_means_under_the_frequencies_of_all_images(function):
    references = [Reference(texts, answer_type=domain) for texts, domain in zip(WRITTEN, DOMAINS, strict=True)]
    (key,) = EVALUATORS[function.__name__.replace("_", "-")].scores
    each = score_each([function.__name__.replace("_", "-")], EvaluationInput(CAPTIONS, references))[key]
    assert function(CAPTIONS, references) == {
        **function(CAPTIONS, WRITTEN),
        f"{key}/in-domain": pytest.approx((each[0] + each[2]) / 2),
        f"{key}/out-domain": pytest.approx(each[1]),
    }


def test_scores_of_the_whole_corpus_have_no_types():
    references = [Reference(texts, answer_type="in-domain") for texts in WRITTEN]
    assert set(evaluate(["bleu"], CAPTIONS, references)) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"}


@pytest.mark.parametrize("function", [exact_match, vqa_soft_accuracy], ids=["exact-match", "vqa-soft-accuracy"])
def test_answers_are_broken_down_by_both_types(function):
    references = [Reference(["cat"], "other", "what"), Reference(["2"], "number", "how many")]
    key = function.__name__
    assert function(["cat", "3"], references) == {
        key: 50.0,
        f"{key}/number": 0.0,
        f"{key}/other": 100.0,
        f"{key}/question_type/how many": 0.0,
        f"{key}/question_type/what": 100.0,
    }
