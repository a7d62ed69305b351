"""Rows of one's own: tables, names of images, labels, ids and splits that are wrong, and what cannot be guessed."""

import yaml

from tests.bad_inputs.case import Case
from tests.data_prep.own_rows import draw_some, some_rows, write_csv

_DECLARED = {
    "name": "mine", "kind": "question", "template": "question: {question}", "image": "image", "target": "answer",
}  # fmt: skip


def _rows(change=None, spoil=None, **declared):
    """Prepares ten rows of a CSV; each goes through `change`, the file through `spoil`."""

    def make(folder, base):
        draw_some(folder / "images")
        rows = [change(n, row) if change else row for n, row in enumerate(some_rows(10))]
        path = write_csv(folder / "rows.csv", rows)
        if spoil:
            path.write_bytes(spoil(path.read_bytes()))
        (folder / "mine.yaml").write_text(yaml.safe_dump({**_DECLARED, **declared}))
        return ["prepare", "--task", "mine.yaml", "--rows", "rows.csv", "--images", "images", "--out", "out"]

    return make


def _at(number, **values):
    return lambda n, row: {**row, **values} if n == number else row


def _with(**columns):
    return lambda n, row: {**row, **{name: values[n % len(values)] for name, values in columns.items()}}


def _new_task(*columns, words=()):
    def make(folder, base):
        write_csv(folder / "rows.csv", [dict.fromkeys(columns, "a b c d e f g")] * 3)
        (folder / "there.yaml").write_text("name: there\n")
        return ["new-task", "--from", "rows.csv", *words]

    return make


_LABELS = {"kind": "image-label", "template": "class:", "labels": ["answer 0", "answer 1"]}

_CASES = {
    "column-unknown": (_rows(target="anwser"), ("rows.csv", "target: anwser, did you mean 'answer'?", "'question'")),
    "template-reads-nothing": (_rows(template="question:"), ("mine.yaml", "template: 'question:' reads no column")),
    "template-reads-the-answer": (
        _rows(template="{question} {answer}"),
        ("mine.yaml", "target: 'answer' is a column of template too", "would read the answer"),
    ),
    "target-is-the-image": (_rows(target="image"), ("mine.yaml", "target: 'image' is a column of image too")),
    "template-is-code": (_rows(template="{{question}}"), ("mine.yaml", "template: '{{question}}'", "computed")),
    "template-has-a-format": (_rows(template="{question!r}"), ("template: question!r, did you mean 'question'?",)),
    "column-without-a-name": (_rows(id=""), ("mine.yaml", "id: the name of a column is empty")),
    "name-too-long": (_rows(name="m" * 101), ("mine.yaml", "name: may have 100 characters at most, got 101")),
    "labels-yes-no": (
        _rows(kind="image-label", template=None, labels=[True, False]),
        ("mine.yaml", "labels: YAML reads yes, no, on and off as True; put quotes around the word"),
    ),
    "label-twice": (
        _rows(kind="image-label", template=None, labels=["a", "a ", "b"]),
        ("mine.yaml", "labels: 'a' is there twice"),
    ),
    "metrics-empty": (_rows(metrics=[]), ("mine.yaml", "metrics: should have at least 1 item, got []")),
    "field-of-split-unknown": (
        _rows(split={"vals": 0.1}),
        ("mine.yaml", "split.vals: unknown field; did you mean 'val'? (known: column, names, val, test"),
    ),
    "split-is-no-mapping": (_rows(split="random"), ("mine.yaml", "split: should be fields, such as val: 0.1")),
    "format-of-rows": (_rows(format="csv"), ("--raw: task 'mine' needs the folder", "(format: csv)", "no --rows")),
    "raw-beside-rows": (
        lambda folder, base: [*_rows()(folder, base), "--raw", "images"],
        ("--raw: task 'mine' takes rows, and no official files",),
    ),
    "image-column-twice": (_rows(image=["image", "image"]), ("mine.yaml", "image: names a column twice: image, image")),
    "second-image-empty": (
        _rows(lambda n, row: {**row, "other": "" if n == 2 else row["image"]}, image=["image", "other"]),
        ("rows.csv, line 4", "has 1 of 2 images ('other' is empty)"),
    ),
    "images-of-texts": (
        _rows(kind="text", image=None),
        ("--images: task 'mine' reads text alone; leave it out",),
    ),
    "ragged": (
        _rows(spoil=lambda text: text + b"a,b\r\n"),
        ("rows.csv, line 12", "2 fields, the header has 3", "quotes"),
    ),
    "mixed-encodings": (_rows(spoil=lambda text: text + "a,caf\xe9,b".encode("cp1252")), ("rows.csv", "not UTF-8")),
    "image-outside": (_rows(_at(3, image="../secret.jpg")), ("rows.csv, line 5", "'../secret.jpg' lies outside")),
    "image-absolute": (_rows(_at(3, image="/etc/hostname")), ("rows.csv, line 5", "'/etc/hostname' lies outside")),
    "image-on-the-web": (_rows(_at(0, image="http://a.b/c.jpg")), ("rows.csv, line 2", "is a web address")),
    "image-missing": (
        _rows(_at(9, image="10.jpg")),
        ("rows.csv, line 11", "image '10.jpg' is not in images", "1 of 10"),
    ),
    "id-twice": (_rows(_with(key=[1, 2, 3, 4, 5, 6]), id="key"), ("rows.csv, line 8", "id '1'", "rows.csv, line 2")),
    "label-unknown": (
        _rows(**_LABELS),
        ("rows.csv, line 4: label 'answer 2' is not declared", "(3 rows)", "declared:"),
    ),
    "label-case": (
        _rows(lambda n, row: {**row, "answer": "Answer 1" if n == 4 else f"answer {n % 2}"}, **_LABELS),
        ("rows.csv, line 6: label 'Answer 1' is not declared; did you mean 'answer 1' or 'answer 0'?", "(1 row)"),
    ),
    "no-answers": (
        _rows(lambda n, row: {**row, "answer": ""}),
        ("no row is left", "10 rows of 10", "'answer' is empty"),
    ),
    "no-answers-in-training": (
        _rows(
            lambda n, row: {**row, "part": ["train", "val"][n % 2], "answer": "a" if n % 2 else ""},
            split={"column": "part"},
        ),
        ("train would have no rows", "5 train rows of 10 left out: 'answer' is empty"),
    ),
    "image-of-another-split": (
        _rows(
            lambda n, row: {**row, "part": ["train", "val"][n % 2], "image": "0.jpg" if n == 5 else row["image"]},
            split={"column": "part"},
        ),
        ("rows.csv, line 7: image 0.jpg is in split 'val' here and in 'train' at rows.csv, line 2",),
    ),
    "split-unknown": (
        _rows(_with(part=["train", "trian"]), split={"column": "part"}),
        ("rows.csv, line 3: split 'trian' in column 'part' is none of those known (train: train, training;",),
    ),
    "long-answer": (_rows(_at(1, answer="word " * 10_000)), ("rows.csv, line 3: an answer of 10,000 words",)),
    "rows-missing": (
        lambda folder, base: [*_rows()(folder, base)[:3], "--rows", "none.csv", "--out", "out"],
        ("none.csv: no such file or folder of rows",),
    ),
    "rows-not-given": (
        lambda folder, base: [*_rows()(folder, base)[:3], "--out", "out"],
        ("--rows: task 'mine' needs rows",),
    ),
    "guess/nothing-fits": (_new_task("a", "b"), ("--target: which column has the answer", "'a', 'b'", "--kind")),
    "guess/no-rows": (
        lambda folder, base: ["new-task", "--from", str((folder / "a.csv").write_text("a,b\n") and "a.csv")],
        ("a.csv: holds no row to guess from",),
    ),
    "guess/kind-unknown": (_new_task("a", words=["--kind", "vqa"]), ("--kind: unknown kind 'vqa'", "image-label")),
    "guess/column-unknown": (
        _new_task("text", "answer", words=["--target", "anwser"]),
        ("--target: no column 'anwser'; did you mean 'answer'?",),
    ),
    "guess/no-images": (
        _new_task("a", "answer", words=["--kind", "question"]),
        ("no column looks like images", "--images"),
    ),
    "guess/there": (
        _new_task("text", "answer", words=["--out", "there.yaml"]),
        ("there.yaml: is there already", "--overwrite"),
    ),
    "guess/not-yaml": (_new_task("text", "answer", words=["--out", "task"]), ("--out: task should end in .yaml",)),
    "guess/name": (_new_task("text", "answer", words=["--name", "My Task"]), ("must be lower case", "'My Task'")),
    "guess/one-label": (
        _new_task("text", "label", words=["--kind", "text-label"]),
        ("column 'label' has 1 different values", "--target"),
    ),
}

CASES = [Case(f"own-rows/{name}", make, says) for name, (make, says) in _CASES.items()]
