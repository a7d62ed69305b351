import gzip
import json
from pathlib import Path

import pytest

from dept_vl.errors import DataError
from dept_vl.evaluators import EvaluationInput, Reference, evaluate
from dept_vl.evaluators.official_files import load_results, load_vqa_references
from dept_vl.evaluators.vqa import question_accuracies, vqa_accuracy
from tests.data.excerpt.cut import RULES

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "data" / "evaluators" / "vqa_goldens.json").read_text(encoding="utf-8")
)


def accuracy(prediction, answers, variant="official", annotators=None):
    reference = Reference(references=answers, annotators=annotators)
    return question_accuracies(EvaluationInput([prediction], [reference]), variant)[0]


@pytest.mark.parametrize(
    ("prediction", "answers", "official", "legacy"),
    [
        # All ten equal: official compares as they are, the older code normalises the prediction alone.
        ("black", ["black"] * 10, 1.0, 1.0),
        ("Black.", ["black"] * 10, 0.0, 1.0),
        (" black\n", ["black"] * 10, 1.0, 1.0),
        ("the cat", ["the cat"] * 10, 1.0, 0.0),
        ("two", ["two"] * 10, 1.0, 0.0),
        ("2", ["2"] * 10, 1.0, 1.0),
        ("two", ["2"] * 10, 0.0, 1.0),
        # They differ: official normalises both sides, the older code takes only punctuation from the answers.
        ("Black.", ["black"] * 9 + ["dark"], 1.0, 1.0),
        ("the cat", ["the cat"] * 9 + ["dog"], 1.0, 0.0),
        ("2", ["two"] * 9 + ["3"], 1.0, 0.0),
        ("0", ["none"] * 9 + ["3"], 1.0, 0.0),
        ("dont know", ["dont know"] * 9 + ["no"], 1.0, 0.0),
        ("T-Shirt!", ["t-shirt"] * 9 + ["shirt"], 1.0, 1.0),
        # 1, 2, 3, 4 of 10 agree.
        ("red", ["red"] + ["blue"] * 9, 0.3, 0.3),
        ("red", ["red"] * 2 + ["blue"] * 8, 0.6, 0.6),
        ("red", ["red"] * 3 + ["blue"] * 7, 0.9, 0.9),
        ("red", ["red"] * 4 + ["blue"] * 6, 1.0, 1.0),
        ("green", ["red"] * 4 + ["blue"] * 6, 0.0, 0.0),
        ("", ["red"] * 4 + ["blue"] * 6, 0.0, 0.0),
        # An empty prediction matches the answer "a", of which nothing is left.
        ("", ["a"] * 5 + ["b"] * 5, 1.0, 0.0),
    ],
)
def test_hand_computed_cases(prediction, answers, official, legacy):
    assert accuracy(prediction, answers) == pytest.approx(official)
    assert accuracy(prediction, answers, "legacy-vlt5") == pytest.approx(legacy)


def test_whitespace_is_cleaned_before_official_asks_whether_the_answers_differ():
    answers = ["the cat"] * 9 + ["the cat "]
    assert accuracy("the cat", answers) == 1.0
    assert accuracy("cat", answers) == 0.0


def test_equal_records_are_left_out_together():
    assert accuracy("red", ["red"] * 10, annotators=["?"] * 10) == 0.0
    assert accuracy("red", ["red"] * 10, annotators=["?"] * 5 + ["!"] * 5) == 1.0


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def golden_references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goldens")
    records = [{**case, "image_id": 1} for case in GOLDENS["cases"]]
    questions = write(folder / "questions.json", {"questions": records})
    return load_vqa_references(questions, write(folder / "annotations.json", {"annotations": records}))


@pytest.mark.parametrize("variant", ["official", "legacy-vlt5"])
def test_scores_equal_the_reference_script_to_the_last_digit(golden_references, variant):
    predictions = [case["prediction"] for case in GOLDENS["cases"]]
    inputs = EvaluationInput(predictions, list(golden_references.values()))
    expected = GOLDENS[variant]
    assert question_accuracies(inputs, variant) == expected["questions"]
    scores = vqa_accuracy(inputs, variant, key="acc")
    assert scores == {
        "acc": expected["overall"],
        **{f"acc/{name}": value for name, value in expected["answer_types"].items()},
        **{f"acc/question_type/{name}": value for name, value in expected["question_types"].items()},
    }


def test_score_names():
    references = [
        Reference(["yes"] * 10, answer_type="yes/no", question_type="is the"),
        Reference(["2"] * 10, answer_type="number", question_type="how many"),
        Reference(["cat"] * 10),
    ]
    assert evaluate(["vqa-accuracy"], ["yes", "3", "cat"], references) == {
        "vqa_accuracy": pytest.approx(200 / 3),
        "vqa_accuracy/number": 0.0,
        "vqa_accuracy/yes/no": 100.0,
        "vqa_accuracy/question_type/how many": 0.0,
        "vqa_accuracy/question_type/is the": 100.0,
    }
    assert "vqa_accuracy_legacy_vlt5" in evaluate(["vqa-accuracy-legacy-vlt5"], ["yes", "3", "cat"], references)


def test_a_question_without_answers_is_refused():
    with pytest.raises(DataError, match="example id 7 has no reference"):
        evaluate(["vqa-accuracy"], ["yes"], [Reference([], example_id=7)])


@pytest.mark.parametrize("variant", ["official", "legacy-vlt5"])
@pytest.mark.parametrize("rule", RULES)
def test_real_answers_get_the_official_scores_to_the_last_digit(excerpt, rule, variant):
    folder = excerpt / "vqa"
    expected = json.loads((folder / "scores.json").read_text())[rule][variant]
    references = load_vqa_references(folder / "questions.json.gz", folder / "annotations.json.gz")
    answers = load_results(folder / f"results_{rule}.json", "question_id", "answer")
    inputs = EvaluationInput([answers[question_id] for question_id in references], list(references.values()))
    recorded = json.loads(gzip.decompress((folder / "annotations.json.gz").read_bytes()))["annotations"]
    by_question = dict(zip((a["question_id"] for a in recorded), expected["questions"], strict=True))
    assert question_accuracies(inputs, variant) == [by_question[question_id] for question_id in references]
    scores = vqa_accuracy(inputs, variant, key="acc")
    assert scores["acc"] == pytest.approx(expected["overall"], rel=1e-12)
    for kind, names in (("", "answer_types"), ("question_type/", "question_types")):
        for name, value in expected[names].items():
            assert scores[f"acc/{kind}{name}"] == pytest.approx(value, rel=1e-12), name


def complete_predictions(folder, split, rule):
    """Predictions made by rule, as the scores beside them were recorded for."""
    with gzip.open(folder / f"vqa_annotatons_{split}.gzip", "rt", encoding="utf-8") as file:
        return [RULES[rule](annotation) for annotation in json.load(file)["annotations"]]


@pytest.mark.whole
def test_all_real_answers_get_the_recorded_official_scores(shared_data):
    folder = shared_data / "vqa_v2"
    recorded = json.loads((folder / "official_evaluator_scores.json").read_text())
    for name in [*(f"test/{rule}" for rule in RULES), "valid/majority", "valid/yes", "valid/first_annotator"]:
        split, rule = name.split("/")
        files = folder / f"vqa_questions_{split}.gzip", folder / f"vqa_annotatons_{split}.gzip"
        references = list(load_vqa_references(*files).values())
        scores = evaluate(["vqa-accuracy"], complete_predictions(folder, split, rule), references)
        assert len(references) == recorded[name]["n"]
        assert round(scores["vqa_accuracy"], 2) == recorded[name]["overall"], name
        for answer_type, value in recorded[name]["perAnswerType"].items():
            assert round(scores[f"vqa_accuracy/{answer_type}"], 2) == value, name


def test_every_real_question_gets_its_recorded_official_accuracy(shared_data):
    folder = shared_data / "vqa_v2"
    references = load_vqa_references(folder / "vqa_questions_test.gzip", folder / "vqa_annotatons_test.gzip")
    for rule in ("first_annotator_messy", "digit_word"):
        predictions = load_results(folder / f"results_test_{rule}.json.gz", "question_id", "answer")
        with gzip.open(folder / f"evalQA_test_{rule}.json.gz", "rt", encoding="utf-8") as file:
            recorded = {int(question_id): value for question_id, value in json.load(file).items()}
        inputs = EvaluationInput([predictions[i] for i in references], list(references.values()))
        accuracies = question_accuracies(inputs)
        assert {i: round(100 * value, 2) for i, value in zip(references, accuracies, strict=True)} == recorded
