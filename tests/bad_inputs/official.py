"""The official files of the data sets that are declared by a file of the package."""

import shutil

from tests.bad_inputs.case import Case, cut, edited
from tests.data_prep.official_files import WRITERS
from tests.data_prep.raw_files import write_json


def _spoil(task, name, spoil, *options):
    """Writes a task's raw files, spoils one, and prepares."""

    def make(folder, base):
        WRITERS[task](folder / "raw")
        spoil(folder / "raw" / name)
        return ["prepare", "--task", task, "--raw", "raw", "--out", "out", *(options or ["--subset"])]

    return make


def _change(task, name, change):
    return _spoil(task, name, lambda path: edited(path, change))


def _line(name, change):
    """Changes the text of a file of NLVR2."""
    return _spoil("nlvr2", f"data/{name}", lambda path: path.write_text(change(path.read_text())))


def _score(results):
    """Scores results in GQA's format against a prepared split."""

    def make(folder, base):
        write_json(folder / "results.json", results)
        (folder / "gqa").mkdir()
        (folder / "gqa" / "test.parquet").write_bytes(b"PAR1")
        return ["eval", "--task", "gqa", "--predictions", "results.json", "--references", "gqa/test.parquet"]

    return make


_TRAIN, _VAL = "train_balanced_questions.json", "val_balanced_questions.json"

_CASES = {
    "not-there": (_spoil("gqa", _VAL, lambda path: path.unlink(), "--no-image-check"), (_VAL, "no such raw file")),
    "cut": (_spoil("gqa", _TRAIN, lambda path: cut(path, 0.5)), (_TRAIN,)),
    "another-data-set": (
        _spoil("vizwiz", "val.json", lambda path: write_json(path, {"questions": []})),
        ("val.json", "should be a list, found dict"),
    ),
    "no-question": (
        _change("vizwiz", "train.json", lambda content: content[2].pop("question") and None),
        ("train.json, record 2", 'missing "question"'),
    ),
    "answer-of-no-choice": (
        _change("scienceqa", "problems.json", lambda content: content["3"].update(answer=7)),
        ("problems.json, record 3", '"answer" is 7', "3 choices"),
    ),
    "label-not-declared": (
        _change("scienceqa", "problems.json", lambda c: c["3"].update(choices=list("abcdefg"), answer=6)),
        ("problems.json, record 3", "label 'G' is not declared", "A, B, C, D, E"),
    ),
    "problem-of-no-split-file": (
        _change("scienceqa", "pid_splits.json", lambda content: content["val"].append("99")),
        ("pid_splits.json, val", "problem 99 is not in problems.json"),
    ),
    "caption-of-no-image": (
        _change("nocaps", "nocaps_val_4500_captions.json", lambda content: content["images"].pop() and None),
        ("nocaps_val_4500_captions.json", "captions of 1 images, such as 2"),
    ),
    "images-not-there": (
        _spoil("flickr30k", "flickr30k-images", shutil.rmtree),
        ("dataset_flickr30k.json, images, record 0", "1000.jpg"),
    ),
    "pair-cut": (_spoil("nlvr2", "data/dev.json", lambda path: cut(path, 0.47)), ("dev.json, line", "not valid JSON")),
    "pair-without-its-set": (
        _line("test1.json", lambda text: text.replace("test1-0-1-0", "test1-0-1")),
        ("test1.json, record 2", '"identifier" should be split-set-pair-sentence', "'test1-0-1'"),
    ),
    "pair-neither-true-nor-false": (
        _line("dev.json", lambda text: text.replace('"False"', '"Maybe"', 1).replace('"True"', '"Maybe"', 1)),
        ("dev.json, record", "label 'Maybe' is not declared", "(2 rows)", "True, False"),
    ),
    "second-image-not-there": (
        _spoil("nlvr2", "images/train/train-2-3-img1.png", lambda path: path.unlink()),
        ("train.json, record 22", "image 'train-2-3-img1.png' is not in raw"),
    ),
    "not-complete": (
        _spoil("nocaps", "nocaps_val_4500_captions.json", lambda path: None, "--images", "raw"),
        ("test: 3 examples", "expected 4,500"),
    ),
    "references-not-a-split": (_score([{"questionId": "1", "prediction": "a"}]), ("gqa/test.parquet", "Parquet")),
}

CASES = [Case(f"official/{name}", make, says) for name, (make, says) in _CASES.items()]
