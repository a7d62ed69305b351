"""What holds for every registered evaluator."""

import math
import shutil
from dataclasses import replace
from importlib.resources import files

import pytest

from dept_vl.errors import ConfigError
from dept_vl.evaluators import EVALUATORS, Reference, Scale, display_scale, evaluate

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
