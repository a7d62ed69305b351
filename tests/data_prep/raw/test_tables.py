"""CSV and TSV: what a quote is, and rows that one swallows."""

import csv
import gzip

import pytest

from data_prep.prepare import prepare
from data_prep.raw.tables import read_csv, read_header, read_tsv
from dept_vl.errors import DataError
from dept_vl.tasks import get_task

COLUMNS = ("sentence", "label")


def written(path, text):
    path.write_text(text, newline="")
    return path


def rows(path, columns=COLUMNS, **options):
    reader = read_csv if path.suffix == ".csv" else read_tsv
    return [row for _, row in reader(path, columns, **options)]


def test_a_table_with_a_field_too_many_or_an_open_quote(tmp_path):
    path = written(tmp_path / "train.tsv", "sentence\tlabel\nfine\t1\none\ttwo\t1\n")
    with pytest.raises(DataError, match=r"train.tsv, line 3: 3 fields, the header has 2"):
        rows(path)
    written(path, 'sentence\tlabel\n"open\t1\n')
    with pytest.raises(DataError, match=r"train.tsv, line 2: .*a quote that is not closed"):
        rows(path, is_quoted=True)
    written(path, "")
    with pytest.raises(DataError, match="the file is empty; expected a header with sentence, label"):
        rows(path)


def test_a_quote_in_tsv_is_a_character(tmp_path):
    """GLUE's MRPC: 455 of 3,668 training rows have a field that begins with a quote."""
    texts = ['"No," he said, and left.', 'a "b" c', '"', '""', '"all"', "caf\u00e9\u2028still", "a\rb", 'end"']
    path = written(tmp_path / "a.tsv", "sentence\tlabel\r\n" + "".join(f"{text}\t1\r\n" for text in texts))
    assert [row["sentence"] for row in rows(path)] == texts


def test_a_tsv_of_a_spreadsheet_is_read_when_asked_for_and_noticed_when_not(tmp_path, caplog):
    path = written(tmp_path / "a.tsv", 'sentence\tlabel\n"say ""hi"" to\tme\nand you"\t1\n')
    assert rows(path, is_quoted=True) == [{"sentence": 'say "hi" to\tme\nand you', "label": "1"}]
    written(path, 'sentence\tlabel\n"say ""hi"""\t1\n')
    assert rows(path) == [{"sentence": '"say ""hi"""', "label": "1"}]
    assert "1 rows have a field that looks quoted" in caplog.text
    assert "--tsv-quotes" in caplog.text


def test_quoted_fields_of_several_lines_are_read(tmp_path):
    texts = [
        "one\ntwo", "Well, yes,\nand no, no", "a\r\nb", "\n", "first,\nsecond, third\n\nfourth", 'he said "1,2"\nso',
        "3\n4",
    ]  # fmt: skip
    path = tmp_path / "a.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("label", "sentence", "idx"), *(("1", text, n) for n, text in enumerate(texts))])
    assert [row["sentence"] for row in rows(path)] == texts


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (("sentence", "label"), ['"open and never closed,1', "fine,0", 'closes here",1']),
        (("sentence", "label"), ['"open,1', 'closes 6",1']),
        (("label", "sentence"), ['1,"open', "0,fine", "1,fine too", '0,a board of 6"']),
        (("label", "sentence"), ['1,"open', '0,a board of 6"']),
        (("idx", "sentence", "label"), ['7,"open,1', '8,he is 6",1']),
        (("question", "sentence", "label"), ['is it,"open,1', "was it,no,0", 'is it,6" wide,0']),
        (("sentence1", "sentence2"), ['a,"open', "b,c", 'd,e"']),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_that_a_quote_swallowed_are_refused_with_the_line_where_it_opens(tmp_path, columns, lines, end):
    header = ",".join(columns)
    path = written(tmp_path / "a.csv", end.join([header, *["1,1", "0,1"] * (len(columns) == 2), *lines, ""]))
    first = 2 + 2 * (len(columns) == 2)
    with pytest.raises(DataError, match=rf"a.csv, line {first}: .*(quote is closed by that of a later|not closed)"):
        rows(path, columns)


def test_a_record_of_several_lines_is_named_by_its_first(tmp_path):
    path = written(tmp_path / "a.csv", 'sentence,label\n"a\nb",1\n"c\nd",1,2\n')
    with pytest.raises(DataError, match=r"a.csv, line 4: 3 fields, the header has 2"):
        rows(path)


@pytest.mark.parametrize(
    ("name", "count", "quoted"), [("mrpc/train", 3668, 455), ("mrpc/dev", 408, 56), ("qnli/dev", 5463, 14)]
)
def test_glues_own_files_are_read_whole(shared_data, name, count, quoted):
    path = shared_data / "nlp" / "raw" / f"{name}.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8-sig", newline="\n") as file:
        lines = [line.rstrip("\r\n").split("\t") for line in file]
    found = rows(path, tuple(lines[0]))
    assert len(found) == count
    assert [list(row.values()) for row in found] == lines[1:]
    assert sum(any(field.startswith('"') for field in row.values()) for row in found) == quoted


def test_prepare_takes_the_flag(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for split in ("train", "validation"):
        lines = [f'"Sentence ""{n}""."\t{n % 2}' for n in range(6)]
        written(raw / f"{split}.tsv", "\n".join(["sentence\tlabel", *lines]))
    prepare(get_task("cola"), raw, tmp_path / "out", subset=True, tsv_quotes=True)
    from dept_vl.data.manifest import open_split

    assert open_split(tmp_path / "out", get_task("cola").under("fixed"), "train")[3]["sentence"] == 'Sentence "3".'


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csvs_header_says_what_separates_its_fields(delimiter, tmp_path):
    cells = [["sentence", "label", "a;b,c|d\te"], ["a,b", "1,5", "x"], ["c;d|e\tf", "2", 'y"z']]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(cells)
    assert rows(tmp_path / "a.csv") == [dict(zip(cells[0], line, strict=True)) for line in cells[1:]]


def test_a_csv_may_say_its_delimiter_in_a_line_of_its_own(tmp_path):
    path = written(tmp_path / "a.csv", 'sep=;\r\nsentence;label\r\n"a;b";1\r\nc\r\n')
    with pytest.raises(DataError, match=r"a.csv, line 4: 1 fields, the header has 2"):
        rows(path)
    path = written(tmp_path / "a.csv", 'sep=;\r\nsentence;label\r\n"a;b";1\r\n')
    assert rows(path) == [{"sentence": "a;b", "label": "1"}]


def test_every_column_is_listed_and_read_where_none_is_named(tmp_path):
    path = written(tmp_path / "a.csv", " sentence ,label,,\r\na,1,,\r\n")
    assert read_header(path, is_tsv=False) == ["sentence", "label", "", ""]
    assert rows(path, None) == [{"sentence": "a", "label": "1", "": ""}]
