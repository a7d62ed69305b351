"""What `predict` writes: an object a line, or the official results format."""

import json
import zipfile
from pathlib import Path

import pytest

from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators.official_files import load_results
from dept_vl.inference.inputs import PredictionInput
from dept_vl.inference.predict import Prediction
from dept_vl.inference.prediction_files import check_output, is_official, write_predictions
from dept_vl.tasks import get_task

VQA = get_task("vqa")
ITEMS = [
    Prediction((Path("a.jpg"),), {"question": "what?", "question_id": 7}, {"greedy": "red", "beam 5": "blue"}, None, 7),
    Prediction((Path("b.jpg"),), {"question": "who?"}, {"greedy": "gr\u00fcn"}, None, 8, ("green",)),
]


def test_an_official_file_has_id_and_the_answer_that_counts(tmp_path):
    path = tmp_path / "out.json"
    write_predictions(path, ITEMS, VQA)
    assert json.loads(path.read_text()) == [
        {"question_id": 7, "answer": "blue"},
        {"question_id": 8, "answer": "gr\u00fcn"},
    ]
    assert load_results(path, "question_id", "answer") == {7: "blue", 8: "gr\u00fcn"}


def test_an_archive_holds_that_file_and_has_the_same_bytes_again(tmp_path):
    write_predictions(tmp_path / "out.json", ITEMS, VQA)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_predictions(tmp_path / folder / "vqa_test2015_results.zip", ITEMS, VQA)
    first, second = ((tmp_path / folder / "vqa_test2015_results.zip").read_bytes() for folder in ("one", "two"))
    assert first == second
    with zipfile.ZipFile(tmp_path / "one" / "vqa_test2015_results.zip") as archive:
        assert archive.namelist() == ["vqa_test2015_results.json"]
        assert archive.read("vqa_test2015_results.json") == (tmp_path / "out.json").read_bytes()


def test_any_other_name_has_an_object_a_line(tmp_path):
    write_predictions(tmp_path / "out.jsonl", ITEMS, VQA)
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first == {
        "image": "a.jpg", "columns": {"question": "what?", "question_id": 7},
        "answers": {"greedy": "red", "beam 5": "blue"},
    }  # fmt: skip
    assert second["references"] == ["green"]
    assert [is_official(Path(name)) for name in ("a.json", "a.ZIP", "a.jsonl", "a")] == [True, True, False, False]


def test_an_output_that_could_not_be_written_is_refused_first(tmp_path):
    one = PredictionInput((Path("a.jpg"),), {"question_id": "7"}, "in.jsonl, line 1")
    with pytest.raises(
        DataError, match=r'in.jsonl, line 1: needs "question_id", a whole number, found \'7\', as --output'
    ):
        check_output(tmp_path / "out.json", VQA, [one])
    check_output(tmp_path / "out.jsonl", VQA, [one])
    twice = [PredictionInput((Path(f"{n}.jpg"),), {}, "", 7) for n in range(2)]
    with pytest.raises(DataError, match=r"1.jpg: question_id 7 is there twice"):
        check_output(tmp_path / "out.zip", VQA, twice)
    with pytest.raises(ConfigError, match=r"there is no folder .*/no/"):
        check_output(tmp_path / "no" / "out.jsonl", VQA, [])
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(tmp_path, VQA, [])


def test_who_gives_the_wrong_file_to_eval_is_told_of_the_right_one(tmp_path):
    write_predictions(tmp_path / "out.jsonl", ITEMS, VQA)
    with pytest.raises(
        DataError, match=r"Extra data; .*expected a list, each entry .*`dept-vl predict --output FILE.json`"
    ):
        load_results(tmp_path / "out.jsonl", "question_id", "answer")
    write_predictions(tmp_path / "out.jsonl", ITEMS[:1], VQA)
    with pytest.raises(DataError, match=r"expected a list, .*`dept-vl predict --output FILE.json` writes this format"):
        load_results(tmp_path / "out.jsonl", "question_id", "answer")
