"""VQA v2: splits, targets and counts; and what is wrong with a raw file is said with its place."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from data_prep.converters.vqa import Question, convert, read_questions, read_vocabulary
from data_prep.prepare import prepare
from data_prep.raw import karpathy
from dept_vl.data.manifest import open_split, split_info
from dept_vl.errors import DataError
from dept_vl.tasks import get_task
from tests.data_prep.raw_files import SPLIT_OF, edit, official_path, write_json, write_karpathy, write_raw

QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path / "raw")


def test_rows_of_one_question():
    answers = ("Yes.", "yes", "yes", "two", "the", "no", "no", "no", "no", "2")
    question = Question(790001, 790, "Is it?", answers, "other", "is it")
    (row,) = convert([question], {790: "train2014/COCO_train2014_000000000790.jpg"})
    assert row == {
        "example_id": 790001,
        "image_id": 790,
        "image": "train2014/COCO_train2014_000000000790.jpg",
        "question": "Is it?",
        "answer_type": "other",
        "question_type": "is it",
        "targets": ["yes", "2", "no"],
        "target_weights": [0.9, 0.6, 1.0],
        "references": list(answers),
    }
    (row,) = convert([question], {790: "x"}, vocabulary={"no", "maybe"})
    assert (row["targets"], row["target_weights"]) == (["no"], [1.0])
    assert row["references"] == list(answers)


def test_questions_follow_their_images_split(raw, tmp_path):
    stats = prepare(get_task("vqa"), raw, tmp_path / "out")
    ids = {
        split: open_split(tmp_path / "out", get_task("vqa"), split)["example_id"][:]
        for split in ("train", "val", "test")
    }
    assert ids == {"train": [1000, 1001, 5000, 5001, 2000, 2001], "val": [3000, 3001], "test": [4000, 4001]}
    row = open_split(tmp_path / "out", get_task("vqa"), "train")[4]
    assert row["image"] == "val2014/COCO_val2014_000000000002.jpg"
    assert row["question"] == "Is there a 2000?"
    assert row["targets"] == ["yes", "no", "maybe", "cat"]
    assert row["target_weights"] == pytest.approx([1.0, 0.9, 0.3, 0.3])
    assert split_info(tmp_path / "out", get_task("vqa"), "val").image_root == str(raw.resolve())
    assert {split: (c.examples, c.images, c.rows) for split, c in stats.splits.items()} == {
        "train": (6, 3, 6),
        "val": (2, 1, 2),
        "test": (2, 1, 2),
    }
    assert stats.lines()[0] == ("vqa train: 6 examples on 3 images (a subset; complete: 605,102 on 113,287 images)")


def test_questions_with_one_answer_are_warned_about_with_the_score_that_fits(raw, tmp_path, caplog):
    for year in ("train2014", "val2014"):
        path = raw / f"v2_mscoco_{year}_annotations.json"
        edit(path, lambda content: [record.update(answers=record["answers"][:1]) for record in content["annotations"]])
    prepare(get_task("vqa"), raw, tmp_path / "out")
    for split in ("val", "test"):
        assert caplog.text.count(f"vqa {split}: vqa-accuracy: every question has 1 answer") == 1
    assert caplog.text.count("exact-match fits") == 2


def test_statistics_are_written(raw, tmp_path):
    prepare(get_task("vqa"), raw, tmp_path / "out")
    stats = json.loads((tmp_path / "out" / "vqa" / "stats.json").read_text())
    assert stats["is_subset"] is True
    assert stats["splits"]["train"]["words"]["question"] == {"max": 4, "p99": 4, "mean": 4}
    assert stats["splits"]["train"]["words"]["references"] == {"max": 2, "p99": 2, "mean": 1.1}
    assert stats["expected"]["test"] == {"examples": 26_280, "images": 5_000}
    assert set(stats["inputs"]) == {
        "dataset_coco.json",
        QUESTIONS,
        ANNOTATIONS,
        QUESTIONS.replace("train", "val"),
        ANNOTATIONS.replace("train", "val"),
    }
    assert stats["inputs"][QUESTIONS]["bytes"] == (raw / QUESTIONS).stat().st_size


def test_the_same_input_gives_the_same_bytes(raw, tmp_path):
    prepare(get_task("vqa"), raw, tmp_path / "a")
    prepare(get_task("vqa"), raw, tmp_path / "b")
    first, second = (
        {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        for out in (tmp_path / "a" / "vqa", tmp_path / "b" / "vqa")
    )
    assert first == second
    assert len(first) == 7


def test_a_vocabulary_drops_training_questions_without_a_target_only(raw, tmp_path):
    edit(raw / ANNOTATIONS, lambda c: [a.update(answer="purple") for a in c["annotations"][0]["answers"]])
    edit(
        raw / ANNOTATIONS.replace("train", "val"),
        lambda c: [a.update(answer="purple") for r in c["annotations"] for a in r["answers"]],
    )
    vocabulary = write_json(tmp_path / "ans2label.json", {"yes": 1, "no": 2, "": 0})
    stats = prepare(get_task("vqa"), raw, tmp_path / "out", answer_vocabulary=vocabulary)
    train = open_split(tmp_path / "out", get_task("vqa"), "train")
    assert train["example_id"][:] == [1000, 1001, 5000]
    assert train[0]["targets"] == ["yes", "no"]
    assert open_split(tmp_path / "out", get_task("vqa"), "val")[0]["targets"] == []
    assert (stats.splits["train"].examples, stats.splits["train"].rows) == (6, 3)
    assert "vqa: 3 training questions left out: no answer is a target" in stats.lines()
    assert read_vocabulary(vocabulary) == {"yes", "no"}


def test_questions_on_unlisted_images_are_counted(raw, tmp_path):
    write_karpathy(raw, {i: s for i, s in SPLIT_OF.items() if i != 5})
    stats = prepare(get_task("vqa"), raw, tmp_path / "out")
    assert stats.left_out["questions left out: their image is not in dataset_coco.json"] == 2
    assert stats.splits["train"].examples == 4


def test_complete_karpathy_file_with_other_counts(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(karpathy, "FULL_IMAGES", 5)
    message = r"counts are not those of the complete data \(train: 6 examples on 3 images, expected 605,102 on 113,287;"
    with pytest.raises(DataError, match=message):
        prepare(get_task("vqa"), raw, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_files_may_lie_in_annotations(raw, tmp_path):
    os.rename(raw / QUESTIONS, raw / "annotations" / QUESTIONS)
    prepare(get_task("vqa"), raw, tmp_path / "out")


# --- bad input --------------------------------------------------------------------------------------------------


def fails(raw: Path, tmp_path: Path, message: str, **options) -> None:
    """Checks the message, and that nothing is left of the output."""
    with pytest.raises(DataError, match=message):
        prepare(get_task("vqa"), raw, tmp_path / "out", **options)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.parametrize("name", [QUESTIONS, ANNOTATIONS, "dataset_coco.json"])
def test_missing_raw_file(raw, tmp_path, name):
    (raw / name).unlink()
    fails(raw, tmp_path, rf"{name} or .*: no such raw file; docs/data.md says where")


@pytest.mark.parametrize("name", [QUESTIONS, ANNOTATIONS, "dataset_coco.json"])
def test_truncated_json(raw, tmp_path, name):
    data = (raw / name).read_bytes()
    (raw / name).write_bytes(data[: len(data) // 2])
    fails(raw, tmp_path, rf"{name}: not valid JSON at byte [\d,]+ of {len(data) // 2:,} \(line 1, column \d+\)")


def test_packed_and_binary_files(raw, tmp_path):
    (raw / QUESTIONS).write_bytes(b"PK\x03\x04")
    fails(raw, tmp_path, f"{QUESTIONS}: is a packed file .a zip archive.; unpack it first")
    (raw / QUESTIONS).write_bytes(b'{"questions": "\xff\xfe"}')
    fails(raw, tmp_path, f"{QUESTIONS}: not UTF-8 text at byte 15")
    (raw / QUESTIONS).write_text("[" * 100_000)
    fails(raw, tmp_path, f"{QUESTIONS}: JSON nested too deeply; not one of the official files")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (QUESTIONS, lambda c: c.pop("questions"), r'missing "questions" at the top; it has "info"'),
        (QUESTIONS, lambda c: c.update(questions={}), r'"questions" should be a list, found dict \{\}'),
        (QUESTIONS, lambda c: c["questions"].insert(2, 7), "questions, record 2: expected an object, found int 7"),
        (QUESTIONS, lambda c: c["questions"][3].pop("image_id"), 'questions, record 3: missing "image_id"; it has'),
        (
            QUESTIONS,
            lambda c: c["questions"][3].update(image_id="5"),
            '"image_id" should be a whole number, found str "5"',
        ),
        (
            QUESTIONS,
            lambda c: c["questions"][3].update(image_id=True),
            '"image_id" should be a whole number, found bool',
        ),
        (QUESTIONS, lambda c: c["questions"][1].update(question=" "), 'questions, record 1: "question" is empty'),
        (
            QUESTIONS,
            lambda c: c["questions"][1].update(question_id=1000),
            'record 1: "question_id" 1000 is there twice',
        ),
        (
            QUESTIONS,
            lambda c: c["questions"].pop(),
            r"annotations, record 0: annotates question 5001, which .* not have",
        ),
        (ANNOTATIONS, lambda c: c["annotations"].pop(), r"1 of 4 questions have no annotation in .*: 1000"),
        (ANNOTATIONS, lambda c: c["annotations"][1].pop("answers"), 'annotations, record 1: missing "answers"'),
        (
            ANNOTATIONS,
            lambda c: c["annotations"][1].update(answers=[]),
            'record 1: "answers" should be a list of objects',
        ),
        (ANNOTATIONS, lambda c: c["annotations"][1]["answers"][9].update(answer=3), 'record 1: "answers" should be a'),
        (
            ANNOTATIONS,
            lambda c: c["annotations"][1].update(image_id=1),
            r'record 1: "image_id" is 1, but question 5000 in',
        ),
        (ANNOTATIONS, lambda c: c["annotations"][1].pop("answer_type"), 'record 1: missing "answer_type"'),
        ("dataset_coco.json", lambda c: c["images"][1].pop("cocoid"), 'images, record 1: missing "cocoid"'),
        (
            "dataset_coco.json",
            lambda c: c["images"][1].update(split="trian"),
            "should be one of train, restval, val, test",
        ),
        (
            "dataset_coco.json",
            lambda c: c["images"][1].update(cocoid=1),
            'images, record 1: "cocoid" 1 is listed twice',
        ),
        (
            "dataset_coco.json",
            lambda c: c["images"][1].update(filename="../x.jpg"),
            "is not a path of a folder and a file",
        ),
        ("dataset_coco.json", lambda c: c.update(images=[]), "lists no images"),
    ],
)
def test_wrong_shape_is_named_with_file_and_record(raw, tmp_path, name, change, message):
    message = message if message.startswith((r"1 of 4", "annotations, record 0: annotates")) else f"{name}.*{message}"
    edit(raw / name, change)
    fails(raw, tmp_path, message)


def test_not_an_object(raw, tmp_path):
    (raw / QUESTIONS).write_text("[]")
    fails(raw, tmp_path, rf'{QUESTIONS}: expected an object with "questions" at the top, found list')


def test_no_question_on_a_listed_image(raw, tmp_path):
    write_karpathy(raw, {77: "train"})
    fails(raw, tmp_path, "none of the raw files' examples is on an image that .*dataset_coco.json lists")


def test_missing_images_are_counted_and_named(raw, tmp_path):
    (raw / official_path(3, "val")).unlink()
    (raw / official_path(1, "train")).unlink()
    fails(raw, tmp_path, r"raw: 2 of 5 images are missing: train2014/COCO_train2014_000000000001.jpg, val2014/COCO_val")
    stats = prepare(get_task("vqa"), raw, tmp_path / "out", image_check=False)
    assert stats.splits["val"].rows == 2
    assert open_split(tmp_path / "out", get_task("vqa"), "val")[0]["image"] == official_path(3, "val")


def test_output_folder_not_empty(raw, tmp_path):
    (tmp_path / "out" / "vqa").mkdir(parents=True)
    (tmp_path / "out" / "vqa" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"vqa: the output folder is not empty"):
        prepare(get_task("vqa"), raw, tmp_path / "out")
    assert (tmp_path / "out" / "vqa" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("content", [3, [], [1], {"": 0}])
def test_bad_vocabulary(raw, tmp_path, content):
    vocabulary = write_json(tmp_path / "vocabulary.json", content)
    fails(
        raw,
        tmp_path,
        r"vocabulary.json: (expected a JSON list of answers|holds no answer)",
        answer_vocabulary=vocabulary,
    )


# --- real data --------------------------------------------------------------------------------------------------


def read_every_question(questions, annotations, folder):
    """Reads official files and holds every id, image and answer against them; returns how many questions there are."""
    write_json(folder / QUESTIONS, {"questions": questions})
    write_json(folder / ANNOTATIONS, {"annotations": annotations})
    found, _ = read_questions(folder, "train2014")
    assert [(q.question_id, q.image_id, q.question) for q in found] == [
        (q["question_id"], q["image_id"], q["question"]) for q in questions
    ]
    official = {a["question_id"]: a for a in annotations}
    for question in found:
        source = official[question.question_id]
        assert list(question.answers) == [a["answer"] for a in source["answers"]]
        assert question.answer_type == source["answer_type"]
        assert question.question_type == source["question_type"]
    return len(found)


def read_packed(path, key):
    return json.loads(gzip.decompress(path.read_bytes()))[key]


def test_every_real_question_is_read(excerpt, tmp_path):
    questions, annotations = (read_packed(excerpt / "vqa" / f"{k}.json.gz", k) for k in ("questions", "annotations"))
    assert read_every_question(questions, annotations, tmp_path) == 149


@pytest.mark.parametrize(
    ("name", "count"),
    [("test", 2_962), *(pytest.param(*p, marks=pytest.mark.slow) for p in (("valid", 8_977), ("train", 48_061)))],
)
def test_every_complete_real_question_is_read(shared_data, tmp_path, name, count):
    questions = read_packed(shared_data / "vqa_v2" / f"vqa_questions_{name}.gzip", "questions")
    annotations = read_packed(shared_data / "vqa_v2" / f"vqa_annotatons_{name}.gzip", "annotations")
    assert read_every_question(questions, annotations, tmp_path) == count


def test_real_questions_on_photographs(photographs, tmp_path):
    """Every count, id and file name comes out right."""
    raw = tmp_path / "raw"
    raw.mkdir()
    questions = photographs.read("vqa_questions.json")["questions"]
    annotations = photographs.read("vqa_annotations.json")["annotations"]
    # the questions are all on train2014 images, which are in the train split: give some to val and test
    images = sorted({question["image_id"] for question in questions})
    split_of = {i: ("val" if n % 5 == 3 else "test" if n % 5 == 4 else "train") for n, i in enumerate(images)}
    records = [
        {"cocoid": i, "split": s, "filepath": "train2014", "filename": f"COCO_train2014_{i:012d}.jpg"}
        for i, s in split_of.items()
    ]
    write_json(raw / "dataset_coco.json", {"images": records, "dataset": "coco"})
    os.symlink(photographs.folder, raw / "images")
    write_json(raw / QUESTIONS, {"questions": questions})
    write_json(raw / ANNOTATIONS, {"annotations": annotations})
    write_json(raw / QUESTIONS.replace("train2014", "val2014"), {"questions": []})
    write_json(raw / ANNOTATIONS.replace("train2014", "val2014"), {"annotations": []})
    stats = prepare(get_task("vqa"), raw, tmp_path / "out")

    answers = {a["question_id"]: [x["answer"] for x in a["answers"]] for a in annotations}
    files = photographs.files()
    total = 0
    for split in ("train", "val", "test"):
        expected = [q for q in questions if split_of.get(q["image_id"]) == split]
        rows = open_split(tmp_path / "out", get_task("vqa"), split)
        assert rows["example_id"][:] == [q["question_id"] for q in expected]
        assert rows["image_id"][:] == [q["image_id"] for q in expected]
        assert rows["question"][:] == [q["question"] for q in expected]
        assert rows["references"][:] == [answers[q["question_id"]] for q in expected]
        for row in rows:
            assert row["image"].removeprefix("images/") in files[row["image_id"]]
            assert (raw / row["image"]).is_file()
        assert stats.splits[split].images == len({q["image_id"] for q in expected}) > 0
        total += len(rows)
    assert total == len(questions)
    assert Counter(stats.left_out.values()) == {0: 2}
