"""Predictions drawn on a sheet, with what people said of them."""

from pathlib import Path

import pytest
from PIL import Image

from dept_vl.inference.predict import Prediction
from dept_vl.reports.scored_answers import is_right
from dept_vl.reports.sheet import caption, write_sheet
from dept_vl.reports.text import describe_predictions


def answered(answer, *references, **fields):
    return Prediction((Path("a.png"),), {"question": "What is it?", "question_id": 3}, {"greedy": answer},
                      references=references, **fields)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "references", "right"),
    [
        ("red", ["red"], True),
        ("The red.", ["red"], True),
        ("blue", ["red"], False),
        ("red", ["red"] * 3 + ["blue"] * 7, True),
        ("red", ["red"] * 2 + ["blue"] * 8, False),
        ("red", ["red"] * 2 + ["blue"] * 2 + ["green"], True),
        ("red", [], None),
    ],
)
def test_an_answer_is_right_if_three_people_or_as_many_as_agree_gave_it(answer, references, right):
    assert is_right(answer, references) is right


def test_a_cell_says_what_was_asked_and_answered_how_sure_and_what_people_said():
    lines = caption(answered("red", "blue", "blue", "navy", confidence=0.875), False)
    assert lines == [
        ("What is it?", "black"), ("greedy: red (p = 0.88) - wrong", "firebrick"), ("people: blue; navy", "black")
    ]  # fmt: skip
    assert caption(answered("red"), None) == [("What is it?", "black"), ("greedy: red", "black")]


def test_a_sheet_has_a_cell_a_prediction_and_draws_no_more_than_fit(tmp_path, caplog):
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png")
    item = Prediction((tmp_path / "a.png",), {}, {"greedy": "a red thing"}, references=("red",))
    write_sheet(tmp_path / "sheet.png", [item] * 5, has_one_answer=False)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.width, sheet.height) == (4 * 236 + 12, 2 * 364 + 12)
    with caplog.at_level("INFO"):
        write_sheet(tmp_path / "sheet.png", [item] * 101)
    assert "draws the first 100 of 101 predictions" in caplog.text


def test_a_picture_of_one_row_of_pixels_is_drawn(tmp_path):
    Image.new("RGB", (900, 1), "red").save(tmp_path / "a.png")
    write_sheet(tmp_path / "sheet.png", [Prediction((tmp_path / "a.png",), {}, {"greedy": "line"})])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.getpixel((20, 12)) == (255, 0, 0)


def test_ways_that_agree_share_a_line():
    same = Prediction((), {"question": "a?"}, {"greedy": "red", "beam 5": "red"})
    other = Prediction((), {"question": "b?"}, {"greedy": "red", "beam 5": "blue"})
    assert describe_predictions([same, other]).splitlines() == [
        "  question: a?", "  greedy = beam 5: red", "  question: b?", "  greedy: red", "  beam 5: blue"
    ]  # fmt: skip
    assert describe_predictions([same, other], limit=1).splitlines()[-1] == "... and 1 more"
