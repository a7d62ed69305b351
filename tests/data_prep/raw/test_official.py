"""Official files to rows, and to prepared splits of the tasks that the package declares for them."""

import gzip
import json
import re

import pytest
import yaml

from data_prep.prepare import prepare
from data_prep.raw.official import FORMATS, read_official
from dept_vl.cli import main
from dept_vl.data.manifest import open_split, read_references, split_images
from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import EVALUATORS, Reference, evaluate
from dept_vl.tasks import get_task, task_names
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.splits import SPLITS
from tests.data_prep.official_files import (
    ANSWERS,
    SENTENCES,
    WRITERS,
    gqa_record,
    karpathy_image,
    nocaps,
    problem,
    vizwiz_record,
)
from tests.data_prep.raw_files import write_json
from tests.evaluators.test_official_scores import GOLDENS

QUESTION = {"question_id": 5, "image_id": 2, "question": "What?"}
DECLARED = [name for name in task_names() if get_task(name).declaration is not None]


def declared(form, files, **more):
    more = {"kind": "question", "template": "{question}", "target": "answers", **more}
    return TaskDeclaration(name="own", format=form, files=files, **more)


def rows(form, raw, files, split="test", **options):
    """Returns place and row of everything in one split's files."""
    source = read_official(declared(form, {split: files}), raw, **options)
    (part,) = source.parts
    return list(part.read([]))


@pytest.fixture
def prepared(request, tmp_path):
    """Returns a task, its prepared data, and what preparing said."""
    task, raw, out = get_task(request.param), tmp_path / "raw", tmp_path / "data"
    WRITERS[request.param](raw)
    return task, out, prepare(task, raw, out, subset=True)


def test_every_declared_task_has_small_files_here_and_a_known_format():
    assert set(DECLARED) == set(WRITERS)
    assert {get_task(name).declaration.format for name in DECLARED} == set(FORMATS)


@pytest.mark.parametrize("name", DECLARED)
def test_the_metrics_of_a_declared_task_are_for_its_kind_and_its_score_is_one_of_theirs(name):
    task = get_task(name)
    assert all(task.declaration.kind in EVALUATORS[one].kinds for one in task.evaluators)
    assert task.primary_metric in [score for one in task.evaluators for score in EVALUATORS[one].scores]


@pytest.mark.parametrize(
    ("prepared", "counts"),
    [
        ("okvqa", {"train": (22, 11), "val": (2, 1), "test": (4, 2)}),
        ("gqa", {"train": (3, 3), "val": (3, 3), "test": (3, 3)}),
        ("gqa-vlt5", {"train": (6, 6), "val": (3, 3), "test": (3, 3)}),
        ("vizwiz", {"train": (11, 11), "val": (1, 1), "test": (3, 3)}),
        ("flickr30k", {"train": (4, 2), "val": (1, 1), "test": (2, 2)}),
        ("nocaps", {"test": (3, 3)}),
        ("scienceqa", {"train": (2, 2), "val": (1, 1), "test": (2, 2)}),
        ("nlvr2", {"train": (24, 24), "val": (16, 16), "test": (16, 16)}),
    ],
    indirect=["prepared"],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_splits_of_declared_tasks(prepared, counts):
    _, _, stats = prepared
    assert {split: (count.examples, count.images) for split, count in stats.splits.items()} == counts
    assert all(one["sha256"] for one in stats.inputs.values())


@pytest.mark.parametrize(
    ("prepared", "source", "targets", "answer_type", "question_type"),
    [
        ("okvqa", "vqa: What is 210?", None, None, "three"),
        ("gqa", "gqa: On which side of 30 is it?", {"left"}, "query", "rel"),
        ("gqa-vlt5", "gpa: On which side of 30 is it?", {"left"}, "query", "rel"),
        ("vizwiz", "vqa: What is in VizWiz_val_00000000.jpg?", None, "other", None),
        ("flickr30k", "caption:", set(), None, None),
        ("nocaps", "caption:", set(), "in-domain", None),
        (
            "scienceqa",
            "Question: Which state is 5?\nContext: N/A\nOptions: (A) Ohio (B) Iowa (C) Utah",
            {"C"},
            "social science",
            "grade4",
        ),
        ("nlvr2", "nlvr: The left image is redder than the right one.", {"false"}, None, None),
    ],
    indirect=["prepared"],
)
def test_the_first_test_row_of_a_declared_task(prepared, source, targets, answer_type, question_type):
    task, data, _ = prepared
    row = open_split(data, task, "test")[0]
    assert task.source_text(row) == source
    assert (row.get("answer_type"), row.get("question_type")) == (answer_type, question_type)
    if targets is None:
        assert row["references"] == ANSWERS
    else:
        assert set(row["targets"]) == targets


@pytest.mark.parametrize("prepared", DECLARED, indirect=True)
def test_prepared_references_are_scored_by_the_metrics_of_the_task(prepared):
    task, data, _ = prepared
    references = [Reference(**row) for row in read_references(data, task, "test")]
    scores = evaluate(task.evaluators, [reference.references[0] for reference in references], references)
    assert scores[task.primary_metric] > 0
    if references[0].answer_type is not None:
        assert f"{task.primary_metric}/{references[0].answer_type}" in scores


@pytest.mark.parametrize("prepared", ["okvqa"], indirect=True)
def test_images_of_coco_keep_their_numbers_so_that_stores_of_vqa_serve(prepared):
    task, data, _ = prepared
    row = open_split(data, task, "test")[0]
    assert (row["example_id"], row["image_id"], row["image"]) == (210, 21, "val2014/COCO_val2014_000000000021.jpg")


@pytest.mark.parametrize(
    ("prepared", "own_id"), [("gqa", "0307"), ("vizwiz", "VizWiz_val_00000000.jpg")], indirect=["prepared"]
)
def test_ids_that_are_texts_stay_beside_a_number(prepared, own_id):
    task, data, _ = prepared
    assert open_split(data, task, "test")[0]["id"] == own_id


@pytest.mark.parametrize("prepared", ["gqa-vlt5"], indirect=True)
def test_gqa_as_sung_et_al_have_it_validates_and_tests_on_the_same_rows(prepared):
    task, data, _ = prepared
    train, val, test = ([row["id"] for row in open_split(data, task, split)] for split in SPLITS)
    assert train == [f"0{image}7" for image in (10, 11, 12, 20, 21, 22)]
    assert val == test == ["0307", "0317", "0327"]


@pytest.mark.parametrize("prepared", ["nlvr2"], indirect=True)
def test_a_row_of_nlvr2_has_its_pair_in_order_and_the_name_of_its_sentences_pairs(prepared):
    task, data, stats = prepared
    row = open_split(data, task, "val")[3]
    assert (row["id"], row["group"], row["sentence"]) == ("dev-0-1-1", "dev-0--1", SENTENCES[1])
    assert row["image"] == [f"images/dev/dev-0-1-img{number}.png" for number in (0, 1)]
    assert len(row["image_id"]) == len(set(row["image_id"])) == 2
    assert set(stats.inputs) == {"data/train.json", "data/dev.json", "data/test1.json"}
    names = {image for row in open_split(data, task, "val") for image in row["image"]}
    assert set(split_images(data, task, "val").values()) == names


def test_a_missing_second_image_is_refused_by_its_name(tmp_path):
    WRITERS["nlvr2"](tmp_path / "raw")
    (tmp_path / "raw" / "images" / "dev" / "dev-1-2-img1.png").unlink()
    with pytest.raises(DataError, match=r"dev\.json, record 12: image 'dev-1-2-img1\.png' is not in .*raw"):
        prepare(get_task("nlvr2"), tmp_path / "raw", tmp_path / "data", subset=True)
    assert not (tmp_path / "data" / "nlvr2").exists()
    stats = prepare(get_task("nlvr2"), tmp_path / "raw", tmp_path / "data", subset=True, skip_missing_images=True)
    assert {split: count.rows for split, count in stats.splits.items()} == {"train": 24, "val": 14, "test": 16}


@pytest.mark.parametrize("prepared", ["scienceqa"], indirect=True)
def test_problems_without_an_image_are_left_out_and_counted(prepared):
    _, _, stats = prepared
    (why,) = (why for why, count in stats.left_out.items() if count == 1)
    assert "they name no image" in why


@pytest.mark.parametrize("prepared", ["flickr30k"], indirect=True)
def test_captions_are_in_the_order_of_their_ids(prepared):
    task, data, _ = prepared
    assert open_split(data, task, "test")[0]["references"] == ["Sentence 0 of 3.", "Sentence 1 of 3."]


@pytest.mark.parametrize("name", ["gqa", "nocaps"])
def test_files_that_are_not_complete_are_refused_without_subset(name, tmp_path):
    WRITERS[name](tmp_path / "raw")
    with pytest.raises(DataError, match=r"test: 3 examples on 3 images, expected (12,578|4,500)"):
        prepare(get_task(name), tmp_path / "raw", tmp_path / "data")
    assert not (tmp_path / "data" / name).exists()


def test_a_split_whose_files_are_not_there_is_not_made_of_a_subset(tmp_path):
    WRITERS["gqa"](tmp_path)
    (tmp_path / "train_balanced_questions.json").unlink()
    declaration = get_task("gqa").declaration
    assert [part.split for part in read_official(declaration, tmp_path, subset=True).parts] == ["val", "test"]
    with pytest.raises(DataError, match=r"train_balanced_questions\.json.*: no such raw file"):
        read_official(declaration, tmp_path)


def test_a_task_of_ones_own_may_name_a_form(tmp_path, monkeypatch, capsys):
    WRITERS["gqa"](tmp_path / "raw")
    declaration = {
        "name": "mine", "kind": "question", "format": "gqa", "template": "{question}", "target": "answers",
        "files": {"train": "train_balanced_questions.json", "test": "testdev_balanced_questions.json"},
        "details": {"answer_type": "detailed"}, "split": {"val": 0.34},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(declaration))
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "--task", "mine.yaml", "--raw", "raw", "--out", "data"]) == 0, capsys.readouterr()
    counts = json.loads((tmp_path / "data" / "mine" / "stats.json").read_text())["splits"]
    assert {split: count["examples"] for split, count in counts.items()} == {"train": 2, "val": 1, "test": 3}


def test_a_file_of_several_splits_is_read_once(tmp_path):
    WRITERS["flickr30k"](tmp_path)
    source = read_official(get_task("flickr30k").declaration, tmp_path)
    assert [[row["id"] for _, row in part.read([])] for part in source.parts] == [[0, 1], [2], [3, 4]]
    assert [file.path.name for file in source.files] == ["dataset_flickr30k.json"]


def test_a_test_split_may_come_without_answers(tmp_path):
    write_json(tmp_path / "questions.json", {"data_subtype": "test-dev2015", "questions": [QUESTION]})
    write_json(tmp_path / "test.json", [vizwiz_record("a.jpg", None)])
    write_json(tmp_path / "gqa.json", {"07": gqa_record(3, None)})
    write_json(tmp_path / "images.json", {"images": nocaps(1)["images"]})
    ((_, asked),) = rows("vqa", tmp_path, ["questions.json"])
    assert (asked["answers"], asked["image"]) == ([], "test2015/COCO_test2015_000000000002.jpg")
    assert rows("vizwiz", tmp_path, ["test.json"])[0][1]["answers"] == []
    assert rows("gqa", tmp_path, ["gqa.json"])[0][1]["answers"] == []
    assert rows("coco-captions", tmp_path, ["images.json"])[0][1]["caption"] == []


def test_questions_without_a_header_name_images_by_number(tmp_path):
    write_json(tmp_path / "q.json", {"questions": [QUESTION]})
    assert rows("vqa", tmp_path, ["q.json"])[0][1]["image"] == "000000000002.jpg"


def test_karpathys_file_of_coco_has_its_folders_and_numbers(tmp_path):
    image = {**karpathy_image(3, "restval"), "cocoid": 9, "filepath": "val2014"}
    write_json(tmp_path / "dataset_coco.json", {"images": [image]})
    ((place, row),) = rows("karpathy", tmp_path, ["dataset_coco.json"], "train")
    assert place == f"{tmp_path / 'dataset_coco.json'}, images, record 0"
    assert (row["id"], row["image_id"], row["image"]) == (9, 9, "val2014/1003.jpg")


def test_texts_of_a_problem_are_those_of_the_authors_code(tmp_path):
    golden = GOLDENS["scienceqa"]
    write_json(tmp_path / "problems.json", golden["problems"])
    write_json(tmp_path / "pid_splits.json", {"test": list(golden["problems"])})
    found = {row["id"]: row for _, row in rows("scienceqa", tmp_path, ["problems.json", "pid_splits.json"])}
    assert {name: row["context"] for name, row in found.items()} == golden["context"]
    assert {name: row["options"] for name, row in found.items()} == golden["options"]
    assert all(row["label"] == "ABCDE"[golden["problems"][name]["answer"]] for name, row in found.items())


BROKEN = [
    ("vqa", {"q.json": []}, 'expected an object with "questions" at the top'),
    ("vqa", {"q.json": {"questions": [{"question_id": 1, "image_id": 2}]}}, 'questions, record 0: missing "question"'),
    ("vqa", {"q.json": {"questions": []}, "a.json": {"annotations": [{"question_id": 7}]}}, "annotates question 7"),
    ("gqa", {"q.json": [gqa_record(1)]}, "expected an object of records by id, found list"),
    ("gqa", {"q.json": {"07": 3}}, "record 07: expected an object, found int 3"),
    ("gqa", {"q.json": {"07": {**gqa_record(1), "imageId": 3}}}, 'record 07: "imageId" should be a text'),
    ("gqa", {"q.json": {"07": {**gqa_record(1), "types": "query"}}}, 'record 07: "types" should be an object'),
    ("vizwiz", {"q.json": {"images": []}}, "should be a list, found dict"),
    ("vizwiz", {"q.json": [{"image": "a.jpg"}]}, 'q.json, record 0: missing "question"'),
    ("vizwiz", {"q.json": [{**vizwiz_record("a.jpg"), "answers": ["cat"]}]}, 'record 0: "answers" should be a list of'),
    ("karpathy", {"q.json": {"images": [{"imgid": 1}]}}, 'images, record 0: missing "split"'),
    ("karpathy", {"q.json": {"images": [{**karpathy_image(1, "dev")}]}}, '"split" should be one of train, restval'),
    ("karpathy", {"q.json": {"images": [{**karpathy_image(1, "test"), "filename": "../a.jpg"}]}}, "is not a path of"),
    ("karpathy", {"q.json": {"images": [{**karpathy_image(1, "test"), "sentences": []}]}}, '"sentences" is empty'),
    ("coco-captions", {"q.json": {"annotations": []}}, 'missing "images" at the top'),
    ("coco-captions", {"q.json": {**nocaps(), "images": nocaps(1)["images"]}}, "captions of 2 images, such as 1, that"),
    ("coco-captions", {"q.json": {"images": [{"id": "x"}]}}, 'images, record 0: "id" should be a whole number'),
    ("scienceqa", {"p.json": {"1": problem(1)}, "s.json": {"train": []}}, 'an object with a list of ids under "test"'),
    ("scienceqa", {"p.json": {"1": problem(1)}, "s.json": {"test": ["2"]}}, "problem 2 is not in p.json"),
    ("scienceqa", {"p.json": {"1": problem(1, answer=3)}, "s.json": {"test": ["1"]}}, '"answer" is 3, and there are 3'),
    ("scienceqa", {"p.json": {"1": problem(1, choices="A")}, "s.json": {"test": ["1"]}}, '"choices" should be a list'),
    ("nlvr2", {"q.json": {"identifier": "dev-1-2", "sentence": "a"}}, 'q.json, record 0: "identifier" should be split'),
    ("nlvr2", {"q.json": {"identifier": "dev-1-2-0"}}, 'q.json, record 0: missing "sentence"'),
    ("nlvr2", {"q.json": {"identifier": "a-1-2-0", "sentence": "a", "label": 1}}, '"label" should be a text'),
    ("nlvr2", {"q.json": []}, "q.json, line 1: expected an object of columns, got []"),
    (
        "scienceqa",
        {"p.json": {"1": problem(1, choices=["A"])}, "s.json": {"test": ["1"]}},
        "should be two texts or more",
    ),
]


@pytest.mark.parametrize(("form", "files", "message"), BROKEN)
def test_files_that_are_not_of_the_form_are_named_with_the_record(form, files, message, tmp_path):
    for name, content in files.items():
        write_json(tmp_path / name, content)
    with pytest.raises(DataError, match=re.escape(message)):
        rows(form, tmp_path, list(files))


def test_a_format_that_is_none_and_files_that_are_too_few(tmp_path):
    with pytest.raises(ConfigError, match="unknown format 'vqa2'; did you mean 'vqa'"):
        rows("vqa2", tmp_path, ["q.json"])
    with pytest.raises(ConfigError, match=r"files.test: format 'scienceqa' needs problems.json and pid_splits.json"):
        rows("scienceqa", tmp_path, ["problems.json"])
    with pytest.raises(ConfigError, match="files: task 'own' names none; format 'gqa' needs one file of questions"):
        read_official(declared("gqa", {}), tmp_path)
    with pytest.raises(DataError, match="holds the files of no split"):
        rows("gqa", tmp_path, ["q.json"], subset=True)


def test_all_questions_of_okvqa_and_images_of_flickr8k_are_read(shared_data):
    asked = rows("vqa", shared_data / "okvqa_format", ["OpenEnded_mscoco_val2014_questions.json"])
    assert (len(asked), len({row["image_id"] for _, row in asked})) == (5_046, 5_033)
    assert asked[0][1]["image"] == "val2014/COCO_val2014_000000297147.jpg"
    counts = {}
    for split in ("train", "val", "test"):
        found = rows("karpathy", shared_data / "karpathy", ["dataset_flickr8k.json"], split)
        counts[split] = (len(found), sum(len(row["caption"]) for _, row in found))
    assert counts == {"train": (6_000, 30_000), "val": (1_000, 5_000), "test": (1_000, 5_000)}


def test_the_real_results_of_okvqa_have_the_ids_that_are_read(shared_data):
    folder = shared_data / "okvqa_format"
    asked = {row["id"] for _, row in rows("vqa", folder, ["OpenEnded_mscoco_val2014_questions.json"])}
    (path,) = folder.glob("coco14_*.json.gz")
    results = json.loads(gzip.decompress(path.read_bytes()))
    id_key, text_key = get_task("okvqa").result_keys
    assert {one[id_key] for one in results} == asked
    assert all(isinstance(one[text_key], str) for one in results)
