import pytest

from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import EvaluationInput, Reference, align, evaluate

REFERENCES = {i: Reference(["yes"] * 10, example_id=i) for i in (3, 1, 2)}


def test_predictions_come_in_the_order_of_the_references():
    texts, references = align({1: "one", 2: "two", 3: "three"}, REFERENCES)
    assert texts == ["three", "one", "two"]
    assert [reference.example_id for reference in references] == [3, 1, 2]


def test_missing_predictions_are_counted_and_named():
    with pytest.raises(DataError, match=r"missing for 2 of 3 questions: 3, 2; .*--allow-missing"):
        align({1: "one"}, REFERENCES, noun="question")


def test_many_missing_predictions_name_the_first_few():
    references = {i: Reference(["x"]) for i in range(100)}
    with pytest.raises(DataError, match=r"missing for 100 of 100 images: 0, 1, 2, 3, 4, \.\.\.;"):
        align({}, references, noun="image")


def test_allow_missing_scores_them_as_empty():
    assert align({1: "one"}, REFERENCES, allow_missing=True)[0] == ["", "one", ""]


def test_predictions_for_unknown_ids_are_refused_even_if_some_may_miss():
    with pytest.raises(
        DataError, match=r"1 of 2 predictions have image ids that are not among the 3 references: 9; give"
    ):
        align({1: "one", 9: "nine"}, REFERENCES, allow_missing=True, noun="image")


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [], "1 predictions for 0 references"),
        (["a", "b"], [Reference(["a"])], "2 predictions for 1 references"),
        ([], [], "nothing to score"),
        (["a"], [Reference([])], "example number 0 has no reference"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, references, message):
    with pytest.raises(DataError, match=message):
        EvaluationInput(predictions, references)


def test_evaluate_merges_the_scores_of_several_evaluators():
    scores = evaluate(["vqa-accuracy", "bleu"], ["yes"], [Reference(["yes"] * 10)])
    assert set(scores) == {"vqa_accuracy", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"}


def test_an_unknown_evaluator_is_an_error_with_the_near_name():
    with pytest.raises(ConfigError, match="unknown evaluator 'cidre'; did you mean 'cider'"):
        evaluate(["cidre"], ["a"], [Reference(["a"])])
