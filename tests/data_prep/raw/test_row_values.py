"""Values of rows are read as the texts that they stand for."""

import numpy as np
import pytest

from data_prep.raw.row_values import read_text, read_texts
from dept_vl.errors import DataError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" a b ", "a b"), (None, ""), (float("nan"), ""), (3, "3"), (3.0, "3"), (2.5, "2.5"), (-1.0, "-1"),
        (True, "true"), (np.float32(4), "4"), (np.bool_(False), "false"), (10**20, "1" + "0" * 20),
    ],
)  # fmt: skip
def test_a_value_is_its_text(value, text):
    assert read_text(value) == text


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("one", ["one"]), ("", []), (None, []), (["a", " ", None, 2], ["a", "2"]), ('["a", "b"]', ["a", "b"]),
        ("['it''s', \"it's\"]", ["its", "it's"]), ("[laughs]", ["[laughs]"]), ("[1] of [2]", ["[1] of [2]"]),
        ("[" * 5000 + "]" * 5000, ["[" * 5000 + "]" * 5000]), ([{"answer": "x", "answer_id": 1}], ["x"]), ("[]", []),
    ],
)  # fmt: skip
def test_a_value_is_a_list_of_texts(value, texts):
    assert read_texts(value) == texts


@pytest.mark.parametrize("value", [{"a": 1}, [["a"]], [{"text": "a"}], b"a", "[[1]]"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(DataError, match="should be a text or a number, found"):
        read_texts(value)
