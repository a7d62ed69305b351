"""Rows of one's own become prepared splits: the habits of tables, the targets, the ids, and what is refused."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.converters.rows import prepare_records
from data_prep.prepare import prepare
from dept_vl.data.manifest import split_info
from dept_vl.errors import ConfigError, DataError
from dept_vl.tasks import get_task
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import (
    declare,
    declare_text,
    draw_some,
    prepared,
    read,
    read_all,
    some_rows,
    write_csv,
    write_jsonl,
)

TRICKY = ['a "quoted", thing', "two\nlines", "semi;colon", "caf\u00e9", "tab\there", "[not a list]", "1,5"]
TEXTS = [{"question": f"{text} {n}", "answer": text} for n, text in enumerate(TRICKY * 2)]


def as_bytes(text, encoding):
    return text.encode(encoding)


def text_of(rows, end="\r\n", delimiter=","):
    def quoted(value):
        return '"' + value.replace('"', '""') + '"'

    lines = [delimiter.join(["question", "answer"])]
    return end.join([*lines, *(delimiter.join(map(quoted, row.values())) for row in rows)]) + end


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", as_bytes(text_of(TEXTS, "\n"), "utf-8")),
        ("crlf-bom.csv", as_bytes(text_of(TEXTS), "utf-8-sig")),
        ("UPPER.CSV", as_bytes(text_of(TEXTS), "utf-8")),
        ("utf-16.csv", as_bytes(text_of(TEXTS), "utf-16")),
        ("semicolons.csv", as_bytes(text_of(TEXTS, delimiter=";"), "utf-8-sig")),
        ("said.csv", as_bytes("sep=;\r\n" + text_of(TEXTS, delimiter=";"), "utf-8")),
        ("tabs.csv", as_bytes(text_of(TEXTS, delimiter="\t"), "utf-16")),
        ("packed.csv.gz", gzip.compress(as_bytes(text_of(TEXTS), "utf-8"))),
        ("lines.jsonl", "".join(json.dumps(row) + "\n" for row in TEXTS).encode("utf-8-sig")),
        ("lines.json", "".join(json.dumps(row) + "\r\n" for row in TEXTS).encode()),
        ("list.json", json.dumps(TEXTS).encode("utf-16")),
        ("data.json", json.dumps({"data": TEXTS}).encode()),
        ("columns.json", json.dumps({key: [row[key] for row in TEXTS] for key in TEXTS[0]}).encode()),
        (
            "pandas.json",
            json.dumps({key: {str(n): row[key] for n, row in enumerate(TEXTS)} for key in TEXTS[0]}).encode(),
        ),
    ],
)
def test_every_kind_of_table_gives_the_same_rows(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    prepared(declare_text(), tmp_path / "out", rows=tmp_path / name)
    rows = read_all(declare_text(), tmp_path / "out")
    assert [(row["question"], row["references"]) for row in rows] == [
        (row["question"], [row["answer"]]) for row in TEXTS
    ]


def test_a_tsv_has_quotes_where_one_says_so(tmp_path):
    (tmp_path / "a.tsv").write_text(text_of(TEXTS, delimiter="\t"))
    prepared(declare_text(), tmp_path / "out", rows=tmp_path / "a.tsv", tsv_quotes=True)
    assert [row["references"] for row in read_all(declare_text(), tmp_path / "out")] == [[r["answer"]] for r in TEXTS]


def test_blanks_around_names_and_values_and_empty_rows_are_no_content(tmp_path):
    (tmp_path / "a.csv").write_text("question , answer,note\n" + "".join(f" q{n} , a ,\n,,\n" for n in range(5)))
    prepared(declare_text(), tmp_path / "out", rows=tmp_path / "a.csv")
    rows = read_all(declare_text(), tmp_path / "out")
    assert [row["question"] for row in rows] == [f"q{n}" for n in range(5)]
    assert {row["references"][0] for row in rows} == {"a"}


def test_numbers_are_read_as_they_are_written(tmp_path):
    """A column of whole numbers with a gap is one of floats to pandas and Parquet."""
    table = pa.table({"question": [1.0, 2.0, 2.5, 4.0], "answer": pa.array([3, 4, 5, 6])})
    pq.write_table(table, tmp_path / "a.parquet")
    prepared(declare_text(), tmp_path / "out", rows=tmp_path / "a.parquet")
    rows = read_all(declare_text(), tmp_path / "out")
    assert [(row["question"], row["targets"]) for row in rows] == [
        ("1", ["3"]), ("2", ["4"]), ("2.5", ["5"]), ("4", ["6"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [["a cat", "A Cat", "A Cat", "dog"], '["a cat", "A Cat", "A Cat", "dog"]', "['a cat', 'A Cat', 'A Cat', 'dog']",
     [{"answer": "a cat"}, {"answer": "A Cat"}, {"answer": "A Cat"}, {"answer": "dog"}]],
)  # fmt: skip
def test_answers_of_several_people_are_targets_with_their_soft_score(answer, tmp_path):
    rows = some_rows(10, answer=answer)
    prepare_records(make_task(declare()), rows, tmp_path / "out", images=draw_some(tmp_path / "images"))
    row = read(declare(), tmp_path / "out", "train")[0]
    assert row["targets"] == ["A Cat", "dog"]
    assert row["target_weights"] == pytest.approx([1, 1 / 3])
    assert row["references"] == ["a cat", "A Cat", "A Cat", "dog"]


def test_answers_in_several_columns_and_the_empty_ones_left_out(tmp_path):
    rows = [{"question": f"q{n}", "a1": " yes ", "a2": "", "a3": None if n else 3} for n in range(5)]
    task = declare_text(target=["a1", "a2", "a3"])
    prepare_records(make_task(task), rows, tmp_path / "out")
    assert [row["targets"] for row in read_all(task, tmp_path / "out")] == [["yes", "3"], *[["yes"]] * 4]


def test_a_printed_array_is_no_list(tmp_path):
    rows = [{"question": f"q{n}", "answer": "['a' 'b']"} for n in range(5)]
    with pytest.raises(DataError, match=r"rows, record 0: 'answer' holds a list without commas, as NumPy prints it"):
        prepare_records(make_task(declare_text()), rows, tmp_path / "out")


def test_labels_are_the_words_that_they_are_declared_as(tmp_path):
    task = declare(kind="image-label", template="class:", labels={1: "cat", 0: "dog"})
    rows = some_rows(10)
    for number, row in enumerate(rows):
        row["answer"] = float(number % 2)
    prepare_records(make_task(task), rows, tmp_path / "out", images=draw_some(tmp_path / "images"))
    assert [row["targets"] for row in read_all(task, tmp_path / "out")] == [["dog"], ["cat"]] * 5


def test_a_label_that_is_not_declared(tmp_path):
    task = declare(kind="image-label", template="class:", labels=["cat", "dog"])
    rows = [
        {**row, "answer": answer}
        for row, answer in zip(some_rows(6), ["cat", "dog", "Cat", "Cat", "cow", "dog"], strict=True)
    ]
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError) as caught:
        prepared(task, tmp_path / "out", rows=path, images=draw_some(tmp_path / "images"))
    assert f"{path}, line 4: label 'Cat' is not declared; did you mean 'cat'? (2 rows)" in str(caught.value)
    assert f"{path}, line 6: label 'cow' is not declared (1 row)" in str(caught.value)
    assert "declared: cat, dog" in str(caught.value)


def test_two_labels_in_a_row(tmp_path):
    task = declare(kind="image-label", template="class:", labels=["cat", "dog"])
    with pytest.raises(DataError, match="record 0: 2 labels, cat, dog; a row has one"):
        prepare_records(make_task(task), some_rows(6, answer=["cat", "dog"]), tmp_path / "out")


def test_captions_are_rows_in_training_and_references_of_their_image_elsewhere(tmp_path):
    task = declare(kind="caption", template=None, target=["answer"])
    rows = [{**row, "split": ["train", "val"][n % 2]} for n, row in enumerate(some_rows(8, images=4))]
    rows[2]["answer"] = ["one  more", "and another"]
    task = declare(kind="caption", template=None, split={"column": "split"})
    stats = prepare_records(make_task(task), rows, tmp_path / "out", images=draw_some(tmp_path / "images", 4))
    train = read(task, tmp_path / "out", "train")
    assert [row["targets"] for row in train] == [
        ["answer 0"], ["one more"], ["and another"], ["answer 1"], ["answer 0"],
    ]  # fmt: skip
    assert train[1]["references"] == ["one  more", "and another", "answer 0"]
    assert len({row["example_id"] for row in train}) == 5
    val = read(task, tmp_path / "out", "val")
    assert [(row["example_id"], row["image"], row["targets"], row["references"]) for row in val] == [
        (1, "1.jpg", [], ["answer 1", "answer 2"]),
        (3, "3.jpg", [], ["answer 0", "answer 1"]),
    ]
    assert (stats.splits["train"].examples, stats.splits["val"].examples) == (5, 2)


def test_whole_numbers_are_ids_and_texts_stay_beside_a_number(tmp_path):
    task = declare_text(id="key")
    for name, keys in {"a": range(20, 26), "b": [f"q-{n}" for n in range(6)], "c": ["007", *range(5)]}.items():
        rows = [{"key": key, "question": f"q {n}", "answer": "a"} for n, key in enumerate(keys)]
        prepare_records(make_task(task), rows, tmp_path / name)
    assert [row["example_id"] for row in read_all(task, tmp_path / "a")] == list(range(20, 26))
    assert "id" not in read_all(task, tmp_path / "a")[0]
    assert [(row["example_id"], row["id"]) for row in read_all(task, tmp_path / "b")] == [
        (n, f"q-{n}") for n in range(6)
    ]
    assert [row["id"] for row in read_all(task, tmp_path / "c")] == ["007", "0", "1", "2", "3", "4"]


def test_an_id_that_is_there_twice(tmp_path):
    rows = [{"key": n % 4, "question": f"q {n}", "answer": "a"} for n in range(6)]
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=r"rows.csv, line 6: id '0' is there twice, first at .*rows.csv, line 2"):
        prepared(declare_text(id="key"), tmp_path / "out", rows=path)
    rows[5]["key"] = " "
    with pytest.raises(DataError, match="record 5: 'key' is empty"):
        prepare_records(make_task(declare_text(id="key")), rows, tmp_path / "out")


def test_ids_may_begin_anew_in_every_split(tmp_path):
    task = declare_text(id="key")
    part = [{"key": n, "question": f"q {n}", "answer": "a"} for n in range(3)]
    prepare_records(make_task(task), {"train": part, "validation": part}, tmp_path / "out")
    assert [row["example_id"] for row in read(task, tmp_path / "out", "val")] == [0, 1, 2]


def test_an_unknown_column_is_named_with_near_ones(tmp_path):
    path = write_csv(tmp_path / "rows.csv", [{"Image": "a.jpg", "qestion": "q", "answer": "a"}])
    with pytest.raises(DataError) as caught:
        prepared(declare(id="key"), tmp_path / "out", rows=path)
    message = str(caught.value)
    assert f"{path}: lacks columns that task 'mine' reads" in message
    assert "template: question, did you mean 'qestion'?" in message
    assert "image: image, did you mean 'Image'?" in message
    assert "id: key" in message
    assert "it has 'Image', 'qestion', 'answer'" in message


def test_a_column_that_is_there_twice(tmp_path):
    (tmp_path / "rows.csv").write_text("question,answer,note,note,answer\na,b,c,d,e\n")
    with pytest.raises(DataError, match=r"rows.csv: column 'answer' is there twice; rename one"):
        prepared(declare_text(), tmp_path / "out", rows=tmp_path / "rows.csv")


def test_a_few_rows_without_an_answer_are_left_out_and_counted(tmp_path):
    rows = [{"question": f"q {n}", "answer": "" if n in (2, 5) else "a"} for n in range(20)]
    path = write_csv(tmp_path / "rows.csv", rows)
    stats = prepared(declare_text(), tmp_path / "out", rows=path)
    assert sum(split.rows for split in stats.splits.values()) == 18
    why = f"rows of 20 left out: 'answer' is empty, so there is no answer (first: {path}, line 4)"
    assert stats.left_out == {why: 2}


def test_rows_of_which_none_has_an_answer(tmp_path):
    rows = [{"question": f"q {n}", "answer": " "} for n in range(20)]
    with pytest.raises(DataError, match=r"no row is left to train on: 20 rows of 20 left out: 'answer' is empty"):
        prepare_records(make_task(declare_text()), rows, tmp_path / "out")
    split = {"train": rows, "val": [{"question": "q", "answer": "a"}]}
    with pytest.raises(DataError, match=r"train would have no rows: .*20 train rows of 21 left out: 'answer' is empty"):
        prepare_records(make_task(declare_text()), split, tmp_path / "out")
    assert not (tmp_path / "out" / "mine").exists()


@pytest.mark.parametrize("has_column", [True, False])
def test_a_test_split_may_have_no_answers(has_column, tmp_path, caplog):
    answered = [{"question": f"q {n}", "answer": "a"} for n in range(20)]
    write_csv(tmp_path / "rows" / "train.csv", answered)
    write_csv(tmp_path / "rows" / "test.csv", [{"question": "q", **({"answer": ""} if has_column else {})}] * 3)
    stats = prepared(declare_text(), tmp_path / "out", rows=tmp_path / "rows")
    assert [row["references"] for row in read(declare_text(), tmp_path / "out", "test")] == [[]] * 3
    assert stats.splits["val"].rows == 2
    assert "test: cannot be scored: none of the 3 examples has an answer to score against" in caplog.text


def test_of_a_test_split_with_some_answers_the_rest_is_left_out(tmp_path):
    part = [{"question": f"q {n}", "answer": "a"} for n in range(4)]
    rows = {"train": part, "val": part, "test": [*part, {"question": "q", "answer": None}]}
    stats = prepare_records(make_task(declare_text()), rows, tmp_path / "out")
    assert stats.splits["test"].rows == 4
    assert stats.splits["test"].examples == 5
    assert list(stats.left_out.values()) == [1]


def test_an_answer_of_ten_thousand_words(tmp_path):
    rows = some_rows(10)
    rows[3]["answer"] = "word " * 10_000
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=r"rows.csv, line 5: an answer of 10,000 words, 'word .*at most 1,000"):
        prepared(declare(), tmp_path / "out", rows=path, images=draw_some(tmp_path / "images"))


def test_free_text_may_be_as_long(tmp_path, caplog):
    rows = [{"question": f"q {n}", "answer": "word " * 10_000} for n in range(4)]
    stats = prepare_records(make_task(declare_text()), rows, tmp_path / "out")
    assert stats.splits["train"].words["targets"]["max"] == 10_000
    assert "mine: the longest target has 10,000 words, and data.max_target_length keeps 64 tokens" in caplog.text


def test_ragged_rows_and_mixed_encodings(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"question,answer\na,b\nc\n")
    with pytest.raises(DataError, match=r"rows.csv, line 3: 1 fields, the header has 2"):
        prepared(declare_text(), tmp_path / "out", rows=path)
    path.write_bytes("question,answer\ncaf\u00e9,b\n".encode() + "caf\u00e9,b\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"rows.csv: not UTF-8 text at byte 27: .*save it as UTF-8"):
        prepared(declare_text(), tmp_path / "out", rows=path)


def test_a_value_that_is_no_text(tmp_path):
    rows = [{"question": ["a", "b"], "answer": "a"}]
    with pytest.raises(DataError, match="record 0: 'question' should be a text or a number, found list"):
        prepare_records(make_task(declare_text()), rows, tmp_path / "out")


def test_a_row_that_asks_nothing_is_left_out(tmp_path):
    rows = [{"question": "" if n == 1 else f"q {n}", "answer": "a"} for n in range(6)]
    stats = prepare_records(make_task(declare_text()), rows, tmp_path / "out")
    assert stats.left_out == {"rows left out: 'question' is empty (first: rows, record 1)": 1}


def test_stats_say_what_the_rows_were_made_from(tmp_path):
    path = write_csv(tmp_path / "rows.csv", some_rows(10))
    images = draw_some(tmp_path / "images")
    prepared(declare(), tmp_path / "out", rows=path, images=images)
    stats = json.loads((tmp_path / "out" / "mine" / "stats.json").read_text())
    assert list(stats["inputs"]) == ["rows.csv"]
    assert stats["rows_key"] == declare().rows_key()
    assert stats["image_root"] == str(images)
    assert split_info(tmp_path / "out", make_task(declare()), "train").image_root == str(images)


def test_a_template_may_read_columns_of_any_name(tmp_path):
    names = ["number", "place", "split", "by", "answers", "question"]
    task = declare_text(template=" ".join(f"{{{name}}}" for name in names))
    rows = [{**{name: f"{name} {n}" for name in names}, "answer": "a"} for n in range(6)]
    prepare_records(make_task(task), rows, tmp_path / "out")
    assert [{name: row[name] for name in names} for row in read_all(task, tmp_path / "out")] == [
        {name: row[name] for name in names} for row in rows
    ]


def test_details_are_kept_for_scores(tmp_path):
    task = declare(details={"answer_type": "kind"})
    prepare_records(make_task(task), some_rows(10, kind="colour"), tmp_path / "out", images=draw_some(tmp_path / "i"))
    assert read(task, tmp_path / "out", "train")[0]["answer_type"] == "colour"


def test_rows_are_needed_and_are_not_for_every_task(tmp_path):
    with pytest.raises(ConfigError, match="--rows: task 'mine' needs rows"):
        prepared(declare_text(), tmp_path / "out")
    with pytest.raises(ConfigError, match="--rows: task 'vqa' takes none"):
        prepare(get_task("vqa"), tmp_path, tmp_path / "out", rows=tmp_path)


def test_a_stopped_preparation_leaves_nothing(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", some_rows(10))
    with pytest.raises(DataError, match="10 of 10 images are missing"):
        prepared(declare(), tmp_path / "out", rows=path)
    assert not (tmp_path / "out").exists()
