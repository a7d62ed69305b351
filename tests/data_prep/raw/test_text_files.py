"""Reading text data sets: damaged files, and the hub."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.first_use.data_dir import text_data_dir
from data_prep.prepare import prepare
from data_prep.raw.text_files import find_split_files, read_hub, read_rows
from dept_vl.errors import DataError
from dept_vl.tasks import Source, get_task
from tests.data_prep.text_rows import cola_folder, cola_rows, write_rows

COLA = Source("nyu-mll/glue", "cola", {})


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
    with pytest.raises(DataError, match=r"train.jsonl, line 1: expected an object of columns, got \[1, 2\]"):
        read(path)


def test_a_truncated_gzip_file(tmp_path):
    path = write_rows(tmp_path / "train.jsonl.gz", cola_rows(300))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train.jsonl.gz: the compressed file is cut short .*not a complete gzip file"):
        read(path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"sentence": "\xff"}\n')
    with pytest.raises(DataError, match=r"train.jsonl: not UTF-8 text at byte 14"):
        read(path)


def found(folder, split="train", **options):
    return [path.relative_to(folder).as_posix() for path in find_split_files(folder, COLA, split, **options)]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_split_in_two_formats_is_refused(tmp_path):
    write_rows(tmp_path / "train.jsonl.gz", cola_rows(1))
    assert found(tmp_path) == ["train.jsonl.gz"]
    assert found(tmp_path, "validation") == []
    write_rows(tmp_path / "train.csv", cola_rows(1))
    with pytest.raises(DataError, match=r"split 'train' is there 2 times: train.jsonl.gz, train.csv"):
        found(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train.CSV",),
        ("Train.csv.gz",),
        ("train.TSV.GZ",),
        ("train.json",),
        ("train-00000-of-00001.parquet",),
        ("train-00000-of-00001-b196ff8a6ee79e9d.parquet",),
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        ("cola/train-00000-of-00002.jsonl", "cola/train-00001-of-00002.jsonl"),
    ],
)
def test_a_split_is_found_under_the_hubs_names(tmp_path, names):
    touch(tmp_path, *names, "train.parquet.gz", "._train.csv", "train-00000.parquet", "README.md", "train_old.csv")
    assert found(tmp_path) == list(names)


def test_a_missing_shard_is_named_unless_a_subset_will_do(tmp_path):
    touch(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
    with pytest.raises(DataError, match=r"'train' is in 3 shards, of which 2 are there: train-00000-of-00003.parquet"):
        found(tmp_path)
    assert len(found(tmp_path, subset=True)) == 2


def test_what_lies_in_the_folder_instead_is_named(tmp_path):
    touch(tmp_path, "dev.tsv", "train_set.csv", ".hidden", "data/test.bin")
    message = r"needs train\{.*there is dev.tsv, train_set.csv, data/test.bin; rename what is meant .*in data/ or cola/"
    with pytest.raises(DataError, match=message):
        prepare(get_task("cola"), tmp_path, tmp_path / "out", subset=True)


def test_shards_are_read_one_after_the_other(tmp_path):
    rows = cola_rows(20)
    write_rows(tmp_path / "raw" / "data" / "train-00000-of-00002.parquet", rows[:15])
    write_rows(tmp_path / "raw" / "data" / "train-00001-of-00002.parquet", rows[15:])
    write_rows(tmp_path / "raw" / "validation.csv", cola_rows(6))
    stats = prepare(get_task("cola"), tmp_path / "raw", tmp_path / "out", subset=True)
    assert stats.splits["train"].rows == 20
    assert set(stats.inputs) == {
        "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "validation.csv"
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}],
        {"data": [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}], "version": 1},
        {"rows": [{"row_idx": 0, "row": {"sentence": "a", "label": 1}}, {"row": {"sentence": "b", "label": 0}}]},
        {"sentence": ["a", "b"], "label": [1, 0]},
        '{"sentence": "a", "label": 1}\n\n{"sentence": "b", "label": 0}\n',
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_of_rows_is_read_in_its_usual_forms(tmp_path, content, indent):
    path = tmp_path / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=indent))
    assert [row for _, row in read(path)] == [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}]


def test_json_of_something_else_is_named(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"a": {\n"b": 1}}')
    with pytest.raises(
        DataError, match=r"train.json: expected a list of rows, objects with sentence, label, or JSON li"
    ):
        read(path)
    path.write_text('[{"sentence": "a", "label": 1},\n 3]')
    with pytest.raises(DataError, match=r"train.json, record 1: expected an object of columns, got 3"):
        read(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_text_format_is_read_by_its_byte_order_mark_plain_and_packed(tmp_path, suffix, encoding, packed):
    rows = [{"sentence": "gr\u00fc\u00df", "label": "1"}, {"sentence": "\u732b", "label": "0"}]
    content = write_rows(tmp_path / f"plain{suffix}", rows).read_text().encode(encoding)
    path = tmp_path / f"train{suffix}"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert [row for _, row in read(path)] == rows


def test_parquet_that_pyarrow_cannot_turn_into_values(tmp_path):
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table({"sentence": text, "label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train.parquet: not a complete Parquet file, or damaged behind record 0"):
        read(tmp_path / "train.parquet")


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
        prepare(get_task("qqp"), None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_task_prepared_in_the_cache_folder_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="cannot load split 'train' from the hub"):
        text_data_dir(get_task("cola").under("fixed"))
    prepare(get_task("cola"), cola_folder(tmp_path / "raw"), tmp_path / "data", subset=True)
    assert text_data_dir(get_task("cola").under("fixed")) == tmp_path / "data"


def test_gzip_and_plain_lines_are_the_same(tmp_path):
    plain = write_rows(tmp_path / "train.jsonl", cola_rows(5))
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert [row for _, row in read(plain)] == [row for _, row in read(packed)]
