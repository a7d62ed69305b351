"""Reading text data sets: damaged files, and the hub."""

import gzip

import pytest

from data_prep.first_use.hub import text_data_dir
from data_prep.prepare import prepare
from data_prep.raw.text_files import find_split_file, read_hub, read_rows
from dept_vl.errors import DataError
from dept_vl.tasks import Source
from tests.data_prep.text_rows import cola_folder, cola_rows, write_rows


def read(path, columns=("sentence", "label")):
    return list(read_rows(path, columns))


def test_a_truncated_parquet_file(tmp_path):
    path = write_rows(tmp_path / "train.parquet", cola_rows(100))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"train.parquet: not a complete Parquet file .*download it again"):
        read(path)


def test_a_wrong_line_of_json(tmp_path):
    path = write_rows(tmp_path / "train.jsonl", cola_rows(3))
    path.write_text(path.read_text() + '\n{"sentence": \n')
    with pytest.raises(DataError, match=r"train.jsonl, line 5: not valid JSON: Expecting value"):
        read(path)
    path.write_text("[1, 2]\n")
    with pytest.raises(DataError, match=r"train.jsonl, line 1: expected an object, found '\[1, 2\]'"):
        read(path)


def test_a_truncated_gzip_file(tmp_path):
    path = write_rows(tmp_path / "train.jsonl.gz", cola_rows(300))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train.jsonl.gz: not a complete gzip file"):
        read(path)
    path.write_text("no gzip")
    with pytest.raises(DataError, match=r"train.jsonl.gz: not a complete gzip file"):
        read(path)


def test_a_table_with_a_field_too_many_or_an_open_quote(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\nfine\t1\none\ttwo\t1\n")
    with pytest.raises(DataError, match=r"train.tsv, line 3: 3 fields, the header has 2"):
        read(path)
    path.write_text('sentence\tlabel\n"open\t1\n')
    with pytest.raises(DataError, match=r"train.tsv, line 2: .*a quote that is not closed"):
        read(path)
    path.write_text("")
    with pytest.raises(DataError, match="the file is empty; expected a header with sentence, label"):
        read(path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"sentence": "\xff"}\n')
    with pytest.raises(DataError, match=r"train.jsonl: not a text file in UTF-8 at byte 14"):
        read(path)


def test_a_split_in_two_formats_is_refused(tmp_path):
    write_rows(tmp_path / "train.jsonl.gz", cola_rows(1))
    assert find_split_file(tmp_path, "train").name == "train.jsonl.gz"
    assert find_split_file(tmp_path, "validation") is None
    write_rows(tmp_path / "train.csv", cola_rows(1))
    with pytest.raises(DataError, match=r"split 'train' is there 2 times: train.jsonl.gz, train.csv"):
        find_split_file(tmp_path, "train")


def test_hub_rows_are_those_of_the_files(tmp_path):
    raw = cola_folder(tmp_path / "cola")  # `datasets` takes a folder for an id
    found = list(read_hub(Source(str(raw), None, {}), "validation", ["label", "sentence"]))
    assert [row for _, row in found] == [{k: r[k] for k in ("label", "sentence")} for r in cola_rows(11)]
    assert found[4][0].endswith("validation, record 4")
    with pytest.raises(DataError, match="validation: missing column 'premise'; it has sentence, label, idx"):
        list(read_hub(Source(str(raw), None, {}), "validation", ["premise"]))


def test_without_network_the_message_says_what_to_do(tmp_path):
    message = r"nyu-mll/glue qqp @bcdcba79d07b: cannot load split 'train' from the hub .*give --raw FOLDER"
    with pytest.raises(DataError, match=message):
        prepare("qqp", None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_task_prepared_in_the_cache_folder_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="cannot load split 'train' from the hub"):
        text_data_dir("cola", "fixed")
    prepare("cola", cola_folder(tmp_path / "raw"), tmp_path / "data", subset=True)
    assert text_data_dir("cola", "fixed") == tmp_path / "data"


def test_gzip_and_plain_lines_are_the_same(tmp_path):
    plain = write_rows(tmp_path / "train.jsonl", cola_rows(5))
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert [row for _, row in read(plain)] == [row for _, row in read(packed)]
