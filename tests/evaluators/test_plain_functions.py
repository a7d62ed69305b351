"""Evaluators as plain functions, and `dept_vl.evaluate`."""

import inspect
import pickle
import pkgutil
import subprocess
import sys
import time

import numpy as np
import pytest

import dept_vl
from dept_vl import evaluators
from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import EVALUATORS, Reference, cider, evaluate, exact_match, f1, vqa_accuracy

CAPTIONS = ["a cat sits", "two dogs run"]
WRITTEN = [["a cat sits down", "the cat"], ["dogs run", "two dogs"]]


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_evaluator_is_a_function_whose_help_names_its_scores(name):
    function = getattr(evaluators, name.replace("-", "_"))
    assert inspect.isfunction(function)
    assert function.__name__ == name.replace("-", "_")
    assert function.__name__ in dir(evaluators)
    assert all(f"``{score}``" in function.__doc__ for score in EVALUATORS[name].scores)


def test_no_module_is_called_as_an_evaluator_is_and_takes_its_name():
    modules = {module.name for module in pkgutil.iter_modules(evaluators.__path__)}
    assert not modules & {name.replace("-", "_") for name in EVALUATORS}


def test_a_function_is_what_evaluate_gives_for_its_evaluator():
    expected = evaluate(["cider"], CAPTIONS, [Reference(texts) for texts in WRITTEN])
    assert cider(CAPTIONS, WRITTEN) == expected
    assert dept_vl.evaluate(CAPTIONS, WRITTEN, "CIDEr") == expected


def test_a_function_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(cider)) is cider


def test_one_text_an_example_is_a_reference():
    assert exact_match(["The Cat", "dog"], ["cat", "cow"]) == {"exact_match": 50.0}


def test_arrays_and_generators_are_lists_of_texts():
    assert f1(np.array(["1", "0"]), (label for label in "11")) == {"f1": pytest.approx(2 / 3)}


def test_mappings_are_put_together_by_their_ids_whatever_those_are():
    answers = {("a", 1): "cat", "b": "dog"}
    assert exact_match(answers, {"b": ["dog"], ("a", 1): ["cow", "cat"]}) == {"exact_match": 100.0}


def test_a_reference_with_its_type_breaks_the_score_down():
    references = [Reference(["yes"] * 10, answer_type="yes/no"), Reference(["2"] * 10, answer_type="number")]
    assert vqa_accuracy(["yes", "3"], references) == {
        "vqa_accuracy": 50.0,
        "vqa_accuracy/number": 0.0,
        "vqa_accuracy/yes/no": 100.0,
    }


def test_several_metrics_by_the_names_of_the_command_line():
    scores = dept_vl.evaluate(["cat"], [["cat", "dog"]], "exact-match,VQA_soft_accuracy")
    assert scores == {"exact_match": 100.0, "vqa_soft_accuracy": 100.0}
    assert dept_vl.evaluate(["cat"], ["cat"], ["exact-match"]) == {"exact_match": 100.0}


def test_labels_say_how_many_predictions_are_none():
    scores = dept_vl.evaluate(["yes", "maybe"], ["yes", "no"], "accuracy", labels=["yes", "no"])
    assert scores == {"accuracy": 0.5, "invalid": 0.5}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["cat"], ["cat", "dog"], "1 predictions for 2 references"),
        ([], [], "nothing to score"),
        ("cat", ["c", "a", "t"], "predictions: expected a list of texts or a mapping by id, got str 'cat'"),
        (["c", "a", "t"], "cat", "references: expected a list of texts or a mapping by id, got str 'cat'"),
        (None, ["cat"], "predictions: expected a list of texts or a mapping by id, got NoneType None"),
        ([1], ["1"], "prediction number 0: expected a text, got int 1; write numbers as texts"),
        (["cat"], [None], "reference number 0: expected a text or a list of texts, got NoneType None"),
        (["cat"], [["cat", 2]], "reference number 0: expected a text, got int 2"),
        (["cat"], [{"text": ["cat"]}], "reference number 0: expected a text or a list of texts, got dict"),
        (["cat", "cow"], [[], "cow"], "example id 0 has no reference text"),
        ({"a": "cat"}, ["cat"], "predictions are by id and references are not"),
        (["cat"], {"a": "cat"}, "references are by id and predictions are not"),
        (
            {"a": "cat"},
            {"b": "cat"},
            "1 of 1 predictions have example ids that are not among the 1 references: a; give",
        ),
        ({"1": "cat"}, {1: "cat"}, "ids are numbers on one side and texts on the other"),
        ({"a": "cat"}, {"a": "cat", "b": "cow"}, "missing for 1 of 2 examples: b; give a prediction for each"),
        ({"a": 3}, {"a": "cat"}, "prediction of id 'a': expected a text, got int 3"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(predictions, references, message):
    with pytest.raises(DataError, match=message):
        exact_match(predictions, references)


def test_a_metric_that_does_not_exist_is_refused_with_the_near_name():
    with pytest.raises(ConfigError, match="unknown evaluator 'cidre'; did you mean 'cider'"):
        dept_vl.evaluate(["cat"], ["cat"], "cidre")
    with pytest.raises(AttributeError, match="no attribute 'exact_mach'; did you mean 'exact-match'"):
        _ = evaluators.exact_mach
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = dept_vl.evalute


@pytest.mark.parametrize("metric", ["", ",", []])
def test_no_metric_is_refused(metric):
    with pytest.raises(ConfigError, match="metric: names no evaluator"):
        dept_vl.evaluate(["cat"], ["cat"], metric)


def test_labels_as_one_text_are_refused():
    with pytest.raises(ConfigError, match="labels: expected a list of texts, got the text 'yes'"):
        dept_vl.evaluate(["yes"], ["yes"], "accuracy", labels="yes")


def test_an_answer_of_ten_thousand_words_is_scored_in_seconds():
    started = time.perf_counter()
    metrics = "vqa-accuracy,vqa-soft-accuracy,exact-match,cider,bleu,rouge-l,accuracy,squad"
    scores = dept_vl.evaluate(["don't re-run 1,000 (U.S.) cats, " * 2_500, "a dog"], ["a cat sits", "dogs"], metrics)
    assert scores["exact_match"] == 0
    assert time.perf_counter() - started < 10


def test_scoring_imports_no_torch_and_starts_no_program():
    code = f"""
import sys
started = []
sys.addaudithook(lambda event, arguments: started.append(arguments) if event == "subprocess.Popen" else None)
import dept_vl
assert not {{"numpy", "pydantic", "dept_vl.evaluators"}} & sys.modules.keys(), "at import dept_vl"
from dept_vl.evaluators import bleu, cider, rouge_l
for function in (bleu, cider, rouge_l):
    function({CAPTIONS}, {WRITTEN})
dept_vl.evaluate({CAPTIONS}, {WRITTEN}, "exact-match,squad")
print([name for name in ("torch", "transformers", "datasets") if name in sys.modules], started)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []"
