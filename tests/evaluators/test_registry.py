"""What holds for every registered evaluator."""

import math
import shutil
from dataclasses import replace
from importlib.resources import files

import pytest

from dept_vl.errors import ConfigError
from dept_vl.evaluators import (
    EVALUATORS,
    EvaluationInput,
    Reference,
    Scale,
    display_scale,
    evaluate,
    evaluator_name,
    score_each,
    score_name,
)

PREDICTIONS = ["1", "0", "0", "2"]
REFERENCES = [
    Reference([label], answer_type="number", question_type="how many", example_id=index, group=f"question {index // 2}")
    for index, label in enumerate(["1", "0", "1", "0"])
]
"""Labels that are also words and numbers, so that every evaluator can score them."""

JAVA = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, and there is no `java` on the PATH")
MODELS = files("pycocoevalcap") / "spice" / "lib" / "stanford-corenlp-3.6.0.jar"
MARKS = {
    "meteor": [JAVA, pytest.mark.slow],  # its Java program takes 7 s to load
    "spice": [
        JAVA,
        pytest.mark.slow,
        pytest.mark.skipif(not MODELS.is_file(), reason="SPICE downloads 0.4 GB of models on first use: not by a test"),
    ],
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [])) for name in EVALUATORS])
def test_every_evaluator_gives_the_finite_scores_it_declares(name):
    scores = evaluate([name], PREDICTIONS, REFERENCES)
    assert {key.split("/")[0] for key in scores} == set(EVALUATORS[name].scores)
    assert all(math.isfinite(value) for value in scores.values())
    for key in scores:
        assert display_scale(key) == EVALUATORS[name].scores[key.split("/")[0]]


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [])) for name in EVALUATORS])
def test_every_example_has_its_own_score_unless_an_evaluator_has_none(name):
    each = score_each([name], EvaluationInput(PREDICTIONS, REFERENCES))
    assert (EVALUATORS[name].each is None) == (each == {})
    assert all(len(values) == len(PREDICTIONS) for values in each.values())
    for key in each.keys() - {"correct"}:
        mean = sum(each[key]) / len(PREDICTIONS)
        if key.startswith(("BLEU", "METEOR")):  # of the corpus, not means
            continue
        assert mean == pytest.approx(evaluate([name], PREDICTIONS, REFERENCES)[key])


@pytest.mark.parametrize("name", EVALUATORS)
def test_an_evaluator_is_found_by_its_name_and_its_scores_in_any_case(name):
    assert evaluator_name(name) == evaluator_name(name.upper()) == evaluator_name(f" {name} ") == name
    for printed in EVALUATORS[name].scores:
        owner = evaluator_name(printed)
        assert printed in EVALUATORS[owner].scores
        assert evaluator_name(printed.upper()) == evaluator_name(printed.lower()) == owner
        assert score_name(printed.lower()) == printed


def test_scores_of_one_evaluator_run_it_once():
    assert list(evaluate(["CIDEr", "BLEU-4", "bleu-1", "ROUGE-L"], PREDICTIONS, REFERENCES)) == list(
        evaluate(["cider", "bleu", "rouge-l"], PREDICTIONS, REFERENCES)
    )


def test_an_evaluators_name_stands_for_its_first_score():
    assert [score_name(name) for name in ("cider", "exact-match", "multirc", "F1")] == [
        "CIDEr", "exact_match", "f1a", "f1",
    ]  # fmt: skip


def test_a_near_name_is_suggested_in_any_case():
    with pytest.raises(ConfigError, match="unknown evaluator 'CIDR'; did you mean 'cider'"):
        evaluator_name("CIDR")


@pytest.mark.parametrize("name", EVALUATORS)
def test_what_evaluate_runs_is_the_registered_evaluator(name, monkeypatch):
    seen = []

    def compute(inputs):
        seen.append((inputs.predictions, inputs.references, inputs.tokenizer))
        return {"mine": 1.0}

    monkeypatch.setitem(EVALUATORS, name, replace(EVALUATORS[name], compute=compute, check_available=lambda _: None))
    assert evaluate([name], PREDICTIONS, REFERENCES, tokenizer="stanford") == {"mine": 1.0}
    assert seen == [(PREDICTIONS, REFERENCES, "stanford")]


def test_an_evaluator_that_cannot_run_here_stops_the_others_before_they_start(monkeypatch):
    def refuse(tokenizer):
        raise ConfigError(f"not with {tokenizer}")

    started = []
    monkeypatch.setitem(EVALUATORS, "cider", replace(EVALUATORS["cider"], compute=started.append))
    monkeypatch.setitem(EVALUATORS, "bleu", replace(EVALUATORS["bleu"], check_available=refuse))
    with pytest.raises(ConfigError, match="not with ptb"):
        evaluate(["cider", "bleu"], PREDICTIONS, REFERENCES)
    assert started == []


def test_a_score_that_no_evaluator_declares_is_printed_as_it_is():
    assert display_scale("from-another-version") == Scale(1.0, "")
