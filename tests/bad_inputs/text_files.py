"""Raw files of the text tasks: Parquet, JSON lines, CSV and TSV."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad_inputs.case import Case, cut, gzip_bomb
from tests.data_prep.text_rows import cola_rows, write_rows


def _rows(suffix, change=None, spoil=None, rows=None):
    """Writes both splits of CoLA; rows of `train` go through `change`, its file through `spoil`."""

    def make(folder, base):
        raw = folder / "raw"
        given = cola_rows(12) if rows is None else rows
        path = write_rows(raw / f"train{suffix}", [change(n, row) for n, row in enumerate(given)] if change else given)
        write_rows(raw / f"validation{suffix}", cola_rows(6))
        if spoil:
            spoil(path)
        return ["prepare", "--task", "cola", "--raw", "raw", "--out", "out", "--subset"]

    return make


def _at(number, **values):
    return lambda n, row: {**row, **values} if n == number else row


def _replace(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new, 1))


def _bomb(path):
    gzip_bomb(path, 40 << 20)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _twice(path):
    write_rows(path.with_suffix(".csv"), cola_rows(3))


def _shards_missing(folder, base):
    words = _rows(".parquet")(folder, base)
    (folder / "raw" / "train.parquet").rename(folder / "raw" / "train-00000-of-00003.parquet")
    return [word for word in words if word != "--subset"]


def _wrong_type(path):
    pq.write_table(pa.table({"sentence": [["a"]], "label": [0.5], "idx": [1]}), path)


_JSONL = ".jsonl"
_CASES = {
    "parquet/label": (_rows(".parquet", _at(3, label=7)), ("train.parquet, record 3", "7")),
    "parquet/wrong-types": (_rows(".parquet", spoil=_wrong_type), ("train.parquet, record 0", "'sentence'")),
    "parquet/null": (_rows(".parquet", _at(2, sentence=None)), ("train.parquet, record 2", "'sentence'")),
    "parquet/empty-file": (_rows(".parquet", spoil=lambda p: p.write_bytes(b"")), ("train.parquet", "complete")),
    "parquet/json-inside": (_rows(".parquet", spoil=lambda p: p.write_text("{}")), ("train.parquet", "complete")),
    "jsonl/label-text": (_rows(_JSONL, _at(3, label="good")), ("train.jsonl, line 4", "good")),
    "jsonl/label-minus": (_rows(_JSONL, _at(3, label=-1)), ("train.jsonl, line 4", "-1")),
    "jsonl/label-fraction": (_rows(_JSONL, _at(0, label=0.0)), ("train.jsonl, line 1", "'label'")),
    "jsonl/label-true": (_rows(_JSONL, _at(0, label=True)), ("train.jsonl, line 1", "'label'")),
    "jsonl/label-nan": (_rows(_JSONL, _at(0, label=float("nan"))), ("train.jsonl, line 1", "'label'")),
    "jsonl/label-list": (_rows(_JSONL, _at(0, label=[1])), ("train.jsonl, line 1", "'label'")),
    "jsonl/sentence-empty": (_rows(_JSONL, _at(1, sentence=" ")), ("train.jsonl, line 2", "is empty")),
    "jsonl/column-missing": (
        _rows(_JSONL, lambda n, row: {k: v for k, v in row.items() if k != "sentence" or n != 2}),
        ("train.jsonl, line 3", "missing column 'sentence'"),
    ),
    "jsonl/line-cut": (_rows(_JSONL, spoil=lambda p: cut(p, 0.97)), ("train.jsonl, line 12", "not valid JSON")),
    "jsonl/line-is-list": (_rows(_JSONL, spoil=_replace(b"\n", b"\n[1]\n")), ("train.jsonl, line 2", "[1]")),
    "jsonl/deep": (_rows(_JSONL, spoil=_replace(b"\n", b"\n" + b"[" * 90_000 + b"\n")), ("line 2", "deeply")),
    "jsonl/long-number": (_rows(_JSONL, spoil=_replace(b'"idx": 0', b'"idx": ' + b"9" * 5000)), ("line 1", "digits")),
    "jsonl/half-a-character": (_rows(_JSONL, spoil=_replace(b"Sentence", b"\\udfff")), ("line 1", "half a char")),
    "jsonl/not-utf-8": (_rows(_JSONL, spoil=_replace(b"Sentence", b"\xff")), ("train.jsonl", "UTF-8")),
    "jsonl/empty": (_rows(_JSONL, spoil=lambda p: p.write_text("")), ("train",)),
    "jsonl/blank-lines": (_rows(_JSONL, spoil=lambda p: p.write_text("\n\n \n")), ("train",)),
    "jsonl/two-formats": (_rows(_JSONL, spoil=_twice), ("raw", "2 times", "train.csv")),
    "gz/cut": (_rows(".jsonl.gz", spoil=lambda p: cut(p, 0.6)), ("train.jsonl.gz", "gzip")),
    "gz/of-something-else": (
        _rows(".jsonl.gz", spoil=lambda p: p.write_bytes(gzip.compress(b"\0\1\2\xff"))),
        ("train.jsonl.gz", "UTF-8"),
    ),
    "json/not-rows": (
        _rows(".json", spoil=lambda p: p.write_text('{"a": 1,\n"b": 2}')),
        ("train.json: expected a list",),
    ),
    "json/cut": (_rows(".json", spoil=lambda p: p.write_text('[{"sentence": "a",\n')), ("train.json: not valid JSON",)),
    "jsonl/zip": (_rows(_JSONL, spoil=lambda p: p.write_bytes(b"PK\x03\x04rest")), ("train.jsonl: is a packed file",)),
    "jsonl/utf-16-cut": (
        _rows(_JSONL, spoil=lambda p: p.write_bytes(p.read_text().encode("utf-16")[:-1])),
        ("train.jsonl", "UTF-16"),
    ),
    "csv/swallowed": (
        _rows(".csv", spoil=lambda p: p.write_text('sentence,label\nfine,1\n"open,1\nfine,0\n6",1\n')),
        ("train.csv, line 3", "later record"),
    ),
    "csv/gz-bomb": (_rows(".csv", spoil=_bomb), ("train.csv, line 1", "longer than")),
    "tsv/gz-cut": (
        _rows(".tsv", spoil=lambda p: p.write_bytes(gzip.compress(p.read_bytes())[:-9])),
        ("train.tsv", "cut short"),
    ),
    "tsv/field-too-many": (_rows(".tsv", spoil=_replace(b"\n", b"\ta\n")), ("train.tsv, line 2", "the header has 4")),
    "shards-missing": (_shards_missing, ("'train' is in 3 shards, of which 1 are there",)),
    "gz/flipped": (
        _rows(".jsonl.gz", spoil=lambda p: p.write_bytes(p.read_bytes()[:60] + b"\0\xff" + p.read_bytes()[62:])),
        ("train.jsonl.gz", "gzip"),
    ),
    "gz/bomb": (_rows(".jsonl.gz", spoil=_bomb), ("train.jsonl.gz, line 1", "longer than")),
    "csv/ragged": (_rows(".csv", spoil=_replace(b"\r\n", b"\r\na,1\r\n")), ("train.csv, line 2", "2 fields")),
    "csv/quote-open": (_rows(".csv", spoil=_replace(b'"Sent', b'""Sent')), ("train.csv, line 2",)),
    "csv/nul": (_rows(".csv", spoil=_replace(b"Sentence", b"Sen\0tence")), ("train.csv", "NUL")),
    "csv/header-missing": (_rows(".csv", spoil=_replace(b"sentence,", b"text,")), ("train.csv, line 1", "'sentence'")),
    "csv/header-twice": (_rows(".csv", spoil=_replace(b",idx", b",label")), ("train.csv, line 1", "'label'", "twice")),
    "csv/empty": (_rows(".csv", spoil=lambda p: p.write_text("")), ("train.csv", "file is empty")),
    "csv/huge-field": (
        _rows(".csv", spoil=_replace(b"Sentence", b"x" * (17 << 20))),
        ("train.csv, line 2", "longer than"),
    ),
    "csv/label": (_rows(".csv", _at(0, label="0.0")), ("train.csv, line 2", "0.0")),
    "tsv/commas": (_rows(".tsv", spoil=lambda p: p.write_bytes(p.read_bytes().replace(b"\t", b","))), ("train.tsv",)),
}


def _no_subset(folder, base):
    return ["prepare", "--task", "cola", "--raw", base.cola, "--out", "out"]


def _task(task, rows):
    def make(folder, base):
        for split in ("train", "validation", "test", "validation_matched", "validation_mismatched"):
            (folder / "raw").mkdir(exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "raw" / f"{split}.jsonl").write_text(lines)
        return ["prepare", "--task", task, "--raw", "raw", "--out", "out", "--subset"]

    return make


_SQUAD = {"context": "a b", "question": "what", "answers": ["a"], "key": "k"}
_OTHERS = {
    "stsb-nan": (_task("stsb", [{"sentence1": "a", "sentence2": "b", "label": float("nan")}]), ("line 1", "'label'")),
    "stsb-far": (_task("stsb", [{"sentence1": "a", "sentence2": "b", "label": 1e300}]), ("line 1", "1e+300")),
    "multirc-idx": (
        _task("multirc", [{"paragraph": "p", "question": "q", "answer": "a", "label": 0, "idx": {"paragraph": -1}}]),
        ("line 1", "'idx'"),
    ),
    "winogrande-answer": (
        _task("winogrande", [{"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "3"}]),
        ("line 1", "3"),
    ),
}


def _pipe_for_a_split(folder, base):
    words = _rows(_JSONL, spoil=_pipe)(folder, base)
    return [word for word in words if word != "--subset"]


CASES = [
    Case("text/jsonl/pipe", _pipe_for_a_split, ("raw", "needs train{")),
    *(Case(f"text/{name}", make, says) for name, (make, says) in {**_CASES, **_OTHERS}.items()),
    *(
        Case(
            f"text/parquet/cut-at-{share}",
            _rows(".parquet", spoil=lambda path, share=share: cut(path, share)),
            ("train.parquet", "not a complete Parquet file"),
        )
        for share in (0.1, 0.5, 0.9, 0.99)
    ),
    Case("text/not-complete", _no_subset, ("train.jsonl: 30 rows", "8,551")),
]
