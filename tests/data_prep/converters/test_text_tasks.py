"""Preparing text tasks: splits, rows, counts, and what is refused."""

import gzip
import json
import shutil

import pytest
import torch

from data_prep.prepare import prepare
from dept_vl.data.manifest import open_split, split_info
from dept_vl.errors import ConfigError, DataError
from dept_vl.tasks import get_task
from dept_vl.tasks.examples import example_rows
from tests.data_prep.text_rows import cola_folder, cola_rows, made_up_rows, write_rows

SPLITS = ("train", "val", "test")


def permuted(count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(42)).tolist()


def columns(out, task, protocol, column, splits=SPLITS):
    return {split: open_split(out, get_task(task).under(protocol), split)[column][:] for split in splits}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    stats = prepare(get_task("cola"), cola_folder(tmp_path / "raw", suffix), tmp_path / "out", subset=True)
    assert stats.folder == tmp_path / "out" / "cola.fixed"
    rows = {split: list(open_split(tmp_path / "out", get_task("cola").under("fixed"), split)) for split in SPLITS}
    assert rows["train"][3] == {
        "example_id": 3, "sentence": 'Sentence number 3, "quoted".', "label": "1",
        "targets": ["1"], "target_weights": [1.0], "references": ["1"],
    }  # fmt: skip
    order = permuted(11)
    assert [row["example_id"] for row in rows["val"]] == order[:5]
    assert [row["example_id"] for row in rows["test"]] == order[5:]
    assert split_info(tmp_path / "out", get_task("cola").under("fixed"), "val").protocol == "fixed"


@pytest.mark.parametrize(
    ("task", "counts", "table_9"),
    [
        ("cola", (8_551, 1_043), (8_551, 521, 522)),
        ("mrpc", (3_668, 408), (3_668, 204, 204)),
        ("rte", (2_490, 277), (2_490, 138, 139)),
        ("superglue-wsc", (554, 104), (554, 52, 52)),
        ("superglue-cb", (250, 56), (250, 28, 28)),
    ],
)
def test_splits_of_complete_files_are_the_released_codes_and_have_table_9s_sizes(tmp_path, task, counts, table_9):
    raw = tmp_path / "raw"
    for split, count in zip(("train", "validation"), counts, strict=True):
        write_rows(raw / f"{split}.jsonl", made_up_rows(task, count))
    stats = prepare(get_task(task), raw, tmp_path / "out", protocol="paper")
    assert not stats.is_subset
    assert tuple(stats.splits[split].rows for split in SPLITS) == table_9
    order, half = permuted(counts[1]), counts[1] // 2
    ids = columns(tmp_path / "out", task, "paper", "example_id")
    assert ids == {"train": list(range(counts[0])), "val": order[:half], "test": order[half:]}
    labels = [str(row["label"]) for row in made_up_rows(task, counts[1])]
    assert columns(tmp_path / "out", task, "paper", "targets")["test"] == [[labels[row]] for row in order[half:]]


REAL = {
    "cola": ("glue_cola", (8_551, 521, 522)),
    "mrpc": ("glue_mrpc", (3_668, 204, 204)),
    "stsb": ("glue_stsb", (5_749, 750, 750)),
    "superglue-wic": ("super_glue_wic", (5_428, 319, 319)),
    "superglue-wsc": ("super_glue_wsc", (554, 52, 52)),
    "superglue-cb": ("super_glue_cb", (250, 28, 28)),
    "rte": ("super_glue_rte", (2_490, 138, 139)),
}
"""Task -> folder of its complete real files, and the sizes of table 9."""


@pytest.mark.whole
def test_table_9_from_the_complete_real_files(shared_data, tmp_path):
    sizes = {}
    for task, (folder, _) in REAL.items():
        raw = shared_data / "nlp" / "hf" / folder
        if task == "rte":  # SuperGLUE's file, whose columns have other names
            for split in ("train", "validation"):
                with gzip.open(raw / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
                    rows = [json.loads(line) for line in file]
                renamed = [{"sentence1": r["premise"], "sentence2": r["hypothesis"], "label": r["label"]} for r in rows]
                write_rows(tmp_path / "rte" / f"{split}.jsonl", renamed)
            raw = tmp_path / "rte"
        stats = prepare(get_task(task), raw, tmp_path / "out", protocol="paper")
        assert not stats.is_subset, task
        sizes[task] = tuple(stats.splits[split].rows for split in SPLITS)
    assert sizes == {task: expected for task, (_, expected) in REAL.items()}


def multirc_sizes(raw, out):
    """Prepares MultiRC's validation rows under both protocols; returns the sizes of val and test, and the groups."""
    sizes, kept = {}, {}
    for protocol in ("fixed", "paper"):
        stats = prepare(get_task("superglue-multirc"), raw, out, protocol=protocol, subset=True)
        assert "train" not in stats.splits
        assert stats.lines()[0].startswith(f"superglue-multirc ({protocol}) train: not made")
        sizes[protocol] = tuple(stats.splits[split].rows for split in ("val", "test"))
        kept[protocol] = open_split(out, get_task("superglue-multirc").under(protocol), "val").column_names
    assert "group" in kept["fixed"]
    assert "group" not in kept["paper"]
    groups = columns(out, "superglue-multirc", "fixed", "group", ("val", "test"))
    assert not set(groups["val"]) & set(groups["test"])
    return sizes, [len(set(groups[split])) for split in ("val", "test")]


def test_multirc_keeps_questions_whole_under_fixed_only(tmp_path):
    answers = [1, 4, 2, 7, 3, 5, 6]  # of each question
    (row, *_) = example_rows("superglue-multirc")
    rows = [
        {
            **row,
            "answer": f"answer {answer}",
            "idx": {"paragraph": question // 3, "question": question, "answer": answer},
        }
        for question, count in enumerate(answers)
        for answer in range(count)
    ]
    write_rows(tmp_path / "raw" / "validation.jsonl", rows)
    sizes, groups = multirc_sizes(tmp_path / "raw", tmp_path / "out")
    first = sum(answers[question] for question in permuted(len(answers))[:3])
    assert sizes == {"fixed": (first, 28 - first), "paper": (14, 14)}
    assert groups == [3, 4]


@pytest.mark.whole
def test_real_multirc_has_the_sizes_of_both_protocols(shared_data, tmp_path):
    sizes, groups = multirc_sizes(shared_data / "nlp" / "hf" / "super_glue_multirc", tmp_path)
    assert sizes == {"fixed": (2_410, 2_438), "paper": (2_424, 2_424)}
    assert groups == [953 // 2, 953 - 953 // 2]


def test_words_of_each_text_column_are_counted(tmp_path):
    rows = [{"question": "a " * n, "answers": ["x", "x y"], "context": "c"} for n in range(1, 201)]
    write_rows(tmp_path / "raw" / "validation.jsonl", rows)
    words = prepare(get_task("nq"), tmp_path / "raw", tmp_path / "out", subset=True).splits["test"].words
    assert words["question"] == {"max": 200, "p99": 198, "mean": 100.5}
    assert words["references"] == {"max": 2, "p99": 2, "mean": 1.5}
    assert "target_weights" not in words


def test_a_large_task_holds_1000_training_rows_out(tmp_path):
    write_rows(tmp_path / "raw" / "train.jsonl", cola_rows(1_250))
    write_rows(tmp_path / "raw" / "validation.jsonl", cola_rows(7))
    prepare(get_task("sst2"), tmp_path / "raw", tmp_path / "out", subset=True)
    ids, order = columns(tmp_path / "out", "sst2", "fixed", "example_id"), permuted(1_250)
    assert ids == {"train": order[1_000:], "val": order[:1_000], "test": list(range(7))}


def test_scitail_has_its_own_test_split_under_fixed_only(tmp_path):
    for split, count in {"train": 5, "validation": 4, "test": 3}.items():
        rows = [{**example_rows("scitail")[n % 3], "id": n} for n in range(count)]
        write_rows(tmp_path / "raw" / f"{split}.jsonl", rows)
    sizes = {}
    for protocol in ("fixed", "paper"):
        stats = prepare(get_task("scitail"), tmp_path / "raw", tmp_path / "out", protocol=protocol, subset=True)
        sizes[protocol] = tuple(stats.splits[split].rows for split in SPLITS)
    assert sizes == {"fixed": (5, 4, 3), "paper": (5, 2, 2)}


def record_rows(count):
    rows = [dict(example_rows("superglue-record")[1], idx=n) for n in range(count)]
    rows[2]["answers"] = []
    return rows


def test_record_rows_are_questions_or_answers(tmp_path):
    write_rows(tmp_path / "raw" / "validation.jsonl", record_rows(4))
    stats = prepare(get_task("superglue-record"), tmp_path / "raw", tmp_path / "out", subset=True)
    assert (stats.splits["test"].examples, stats.splits["test"].rows) == (4, 3)
    assert "superglue-record (fixed): 1 test rows left out: they have no answer" in stats.lines()
    row = open_split(tmp_path / "out", get_task("superglue-record").under("fixed"), "test")[1]
    assert row["targets"] == row["references"] == ["Ilse Brandt", "Mayor Ilse Brandt"]
    assert row["entities"] == ["Ostrand", "Ilse Brandt", "Mayor Ilse Brandt"]
    prepare(get_task("superglue-record"), tmp_path / "raw", tmp_path / "out", protocol="paper", subset=True)
    paper = open_split(tmp_path / "out", get_task("superglue-record").under("paper"), "test")
    assert paper["example_id"][:] == list(range(7))
    assert [targets[0] for targets in paper["targets"][:]][4:] == ["<unk>", "Ilse Brandt", "Mayor Ilse Brandt"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("task", ["squad", "superglue-multirc", "superglue-wsc", "newsqa"])
def test_lists_and_objects_are_read_from_every_format(tmp_path, task, suffix):
    write_rows(tmp_path / "raw" / f"validation{suffix}", [dict(row) for row in example_rows(task)])
    stats = prepare(get_task(task), tmp_path / "raw", tmp_path / "out", subset=True)
    assert stats.splits["test"].rows >= 1


def test_both_protocols_lie_side_by_side_and_are_not_mixed_up(tmp_path):
    raw, out = cola_folder(tmp_path / "raw"), tmp_path / "out"
    prepare(get_task("cola"), raw, out, protocol="paper", subset=True)
    with pytest.raises(
        DataError, match=r"cola.fixed/val.parquet: no such prepared split \(there is cola.paper: another"
    ):
        open_split(out, get_task("cola").under("fixed"), "val")
    shutil.copytree(out / "cola.paper", out / "cola.fixed")
    message = "holds split 'val' of task 'cola' under protocol 'paper', expected .* under protocol 'fixed'"
    with pytest.raises(DataError, match=message):
        open_split(out, get_task("cola").under("fixed"), "val")


def test_the_statistics_say_what_was_read(tmp_path):
    prepare(get_task("cola"), cola_folder(tmp_path / "raw"), tmp_path / "out", subset=True)
    stats = json.loads((tmp_path / "out" / "cola.fixed" / "stats.json").read_text())
    assert stats["protocol"] == "fixed"
    assert stats["is_subset"] is True
    assert stats["splits"]["val"]["words"]["sentence"]["max"] == 4
    assert sorted(stats["inputs"]) == ["train.jsonl", "validation.jsonl"]


def fails(raw, tmp_path, message, task="cola", **options):
    """Checks the message, and that nothing was written."""
    with pytest.raises(DataError, match=message):
        prepare(get_task(task), raw, tmp_path / "out", **{"subset": True, **options})
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_other_sizes_than_the_complete_ones_are_refused(tmp_path):
    raw = cola_folder(tmp_path / "raw")
    message = r"train.jsonl: 30 rows of 'train', the complete nyu-mll/glue cola @bcdcba79d07b has 8,551: .*--subset"
    fails(raw, tmp_path, message, subset=False)


def test_a_missing_split_file_is_named(tmp_path):
    raw = cola_folder(tmp_path / "raw")
    (raw / "train.jsonl").unlink()
    fails(
        raw,
        tmp_path,
        r"task 'cola' needs train\{.parquet,.jsonl,.*\}, as in nyu-mll/glue cola .*--subset",
        subset=False,
    )
    stats = prepare(get_task("cola"), raw, tmp_path / "out", subset=True)
    assert stats.lines()[0] == "cola (fixed) train: not made, its raw rows are not there (complete: 8,551)"
    with pytest.raises(DataError, match=r"cola.fixed/train.parquet: no such prepared split; run: dept-vl prepare"):
        open_split(tmp_path / "out", get_task("cola").under("fixed"), "train")


def test_an_empty_folder_is_refused_even_for_a_subset(tmp_path):
    (tmp_path / "raw").mkdir()
    fails(tmp_path / "raw", tmp_path, "needs train.* and validation.*, as in nyu-mll/glue cola")


def test_a_missing_column_is_named(tmp_path):
    raw = cola_folder(tmp_path / "raw", ".parquet")
    fails(raw, tmp_path, "train.parquet: missing column 'sentence1', 'sentence2'; it has sentence, label, idx; expected sentence1, sentence2, label", "mrpc")  # noqa: E501  # fmt: skip
    raw = cola_folder(tmp_path / "lines")
    with open(raw / "train.jsonl", "a") as file:
        file.write('{"sentence": "a"}\n')
    fails(raw, tmp_path, "train.jsonl, line 31: missing column 'label'; it has sentence; expected sentence, label")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentence": "a", "label": -1}, "line 31: 'label' should be one of 0, 1, found '-1'"),
        ({"sentence": " ", "label": 1}, "line 31: 'sentence' is empty"),
        ({"sentence": ["a"], "label": 1}, r"line 31: 'sentence' should be a text, found list \['a'\]"),
        ({"sentence": "a", "label": 1.0}, "line 31: 'label' should be a class, found float 1.0"),
        ({"sentence": "a", "label": None}, "line 31: 'label' should be a class, found NoneType None"),
    ],
)
def test_a_bad_value_is_named_with_its_line(tmp_path, row, message):
    raw = cola_folder(tmp_path / "raw")
    with open(raw / "train.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    fails(raw, tmp_path, message)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("stsb", {"label": "high"}, "'label' should be a number, found str 'high'"),
        ("squad", {"answers": ["Kell"]}, """'answers' should be an object of "text" and "answer_start", found list"""),
        ("nq", {"answers": "Kell"}, "'answers' should be a list of texts, found str 'Kell'"),
        ("nq", {"answers": [" "]}, "'answers' holds an empty text"),
        ("superglue-wsc", {"span1_index": -1}, "'span1_index' should be a whole number from 0, found int -1"),
        ("superglue-multirc", {"idx": 3}, "'idx' should be an object of .*, found int 3"),
    ],
)
def test_a_bad_value_of_another_kind_is_named_with_its_record(tmp_path, task, change, message):
    raw = tmp_path / "raw"
    write_rows(raw / "validation.jsonl", [{**example_rows(task)[0], **change}])
    fails(raw, tmp_path, f"validation.jsonl, line 1: {message}", task)


def test_mrqa_without_an_answer_is_refused_under_paper(tmp_path):
    write_rows(tmp_path / "raw" / "validation.jsonl", [{**example_rows("nq")[0], "answers": []}])
    fails(tmp_path / "raw", tmp_path, "line 1: 'answers' is empty", "nq", protocol="paper")


def test_a_split_that_would_be_empty_is_refused(tmp_path):
    write_rows(tmp_path / "raw" / "train.jsonl", cola_rows(900))
    message = "task 'sst2': train would be empty: 'train' has 900 rows, of which 1,000 validate"
    fails(tmp_path / "raw", tmp_path, message, "sst2")


def test_an_earlier_result_is_not_overwritten(tmp_path):
    raw = cola_folder(tmp_path / "raw")
    prepare(get_task("cola"), raw, tmp_path / "out", subset=True)
    with pytest.raises(DataError, match=r"cola.fixed: the output folder is not empty"):
        prepare(get_task("cola"), raw, tmp_path / "out", subset=True)


def test_options_of_other_tasks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--images: task 'cola' takes none"):
        prepare(get_task("cola"), tmp_path, tmp_path / "out", images=tmp_path)
    with pytest.raises(ConfigError, match="--protocol: task 'vqa' takes none"):
        prepare(get_task("vqa"), tmp_path, tmp_path / "out", protocol="paper")
    with pytest.raises(ConfigError, match="--raw: task 'vqa' needs the folder"):
        prepare(get_task("vqa"), None, tmp_path / "out")
