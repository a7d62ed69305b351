"""Files of predictions of declared tasks, in their authors' results format, against a prepared split."""

import json

import pytest

from dept_vl.cli import main
from dept_vl.errors import DataError
from dept_vl.inference.score_file import evaluate_file
from dept_vl.inference.verify import read_record, verify_file
from dept_vl.tasks import get_task
from tests.data_prep.official_files import WRITERS
from tests.data_prep.raw_files import write_json

RESULTS = {
    "okvqa": ([{"question_id": q, "answer": "Pony tail."} for q in (210, 211, 220, 221)], {"vqa_accuracy": 100.0}),
    "gqa": (
        [{"questionId": f"0{n}7", "prediction": answer} for n, answer in ((30, "left"), (31, "Left"), (32, "right"))],
        {"accuracy": 1 / 3, "accuracy/query": 1 / 3, "accuracy/question_type/rel": 1 / 3},
    ),
    "vizwiz": (
        [{"image": f"VizWiz_val_{n:08}.jpg", "answer": ("braid", "a Pony Tail", "")[n]} for n in range(3)],
        {"vizwiz_accuracy": 100 * (0.3 + 1 + 0) / 3},
    ),
    "nocaps": ([{"image_id": n, "caption": f"Caption 0 of {n}."} for n in range(3)], {"ROUGE-L": 1.0}),
    "scienceqa": ([{"id": n, "prediction": "C"} for n in (5, 6)], {"accuracy": 0.5, "accuracy/social science": 0.5}),
}


@pytest.fixture
def prepared(tmp_path):
    """Returns what writes and prepares a task's raw files: the path of its test split."""

    def prepare(name):
        WRITERS[name](tmp_path / "raw")
        words = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "data"), "--subset"]
        assert main(["prepare", "--task", name, *words]) == 0
        return tmp_path / "data" / name / "test.parquet"

    return prepare


@pytest.mark.parametrize("name", RESULTS)
def test_results_in_the_authors_format_are_scored_against_a_prepared_split(name, prepared, tmp_path, capsys):
    results, expected = RESULTS[name]
    path, output = write_json(tmp_path / "results.json", results), tmp_path / "scores.json"
    words = ["--predictions", str(path), "--references", str(prepared(name)), "--output", str(output)]
    assert main(["eval", "--task", name, *words]) == 0, capsys.readouterr()
    found = json.loads(output.read_text())["metrics"]
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert verify_file(read_record(output)) == []


def test_a_references_file_of_another_task_or_name_is_refused(prepared, tmp_path):
    split = prepared("gqa")
    results = write_json(tmp_path / "results.json", RESULTS["gqa"][0])
    with pytest.raises(DataError, match=r"task 'nocaps' is scored against a split .*DATA/nocaps/test\.parquet"):
        evaluate_file(get_task("nocaps"), results, {"references": split})
    with pytest.raises(DataError, match=r"copy\.parquet: no such prepared split"):
        evaluate_file(get_task("gqa"), results, {"references": split.with_name("copy.parquet")})


def test_ids_that_are_not_those_of_the_split_are_refused(prepared, tmp_path):
    split = prepared("gqa")
    for results, message in (
        ([{"questionId": 307, "prediction": "left"}], '"questionId" must be a string, got 307'),
        (
            [{"questionId": "9", "prediction": "left"}],
            "1 of 1 predictions have questionId ids that are not among the 3",
        ),
        ([{"questionId": "0307", "prediction": "left"}], "predictions missing for 2 of 3"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate_file(get_task("gqa"), write_json(tmp_path / "results.json", results), {"references": split})
