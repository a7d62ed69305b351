"""The drawn scenes: determinism, disjoint splits, official formats, unambiguous and balanced questions."""

from __future__ import annotations

import collections
import errno
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from data_prep.demo_world.drawing import CELL_SIZE, IMAGE_SIZE, draw_image
from data_prep.demo_world.files import QUESTIONS_PER_IMAGE, write_scenes
from data_prep.demo_world.questions import Question, Wording, draw_captions, draw_questions, plural
from data_prep.demo_world.scene import COLORS, POSITIONS, SHAPES, SIZES, Scene, SceneObject, draw_scene, draw_variant
from dept_vl.errors import DataError

COUNTS = {"num_train": 40, "num_restval": 6, "num_val": 10, "num_test": 10}
SPLITS = ("pretrain", "train", "restval", "val", "test")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "raw"
    write_scenes(folder, **COUNTS, seed=3)
    return folder


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_same_seed_writes_the_same_bytes_in_another_process(raw: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from data_prep.demo_world.files import write_scenes; "
        f"write_scenes(Path(sys.argv[1]), **{COUNTS!r}, seed=3)"
    )
    root = Path(__file__).resolve().parents[3]
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "raw")], check=True, cwd=root, env={"PYTHONHASHSEED": "7"}
    )
    assert _digest(tmp_path / "raw") == _digest(raw)


def test_another_seed_draws_other_scenes(raw: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "raw", **COUNTS, seed=4)
    assert _load(tmp_path / "raw" / "dataset_coco.json") != _load(raw / "dataset_coco.json")


def test_splits_share_no_scene() -> None:
    keys = {}
    for split in SPLITS:
        rng = random.Random(0)
        keys[split] = {draw_scene(rng, split).key for _ in range(300)}
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not keys[one] & keys[other]


def test_split_depends_on_contents_not_on_the_seed() -> None:
    scene = Scene("gray", (SceneObject(4, "red", "star", "large"),))
    assert scene.split == Scene("gray", (SceneObject(4, "red", "star", "large"),)).split
    splits = collections.Counter(draw_variant(random.Random(i), scene).split for i in range(400))
    assert len(splits) >= 4  # a scene and its neighbours fall into different splits


def test_karpathy_splits_lie_in_the_official_subsets(raw: Path) -> None:
    images = _load(raw / "dataset_coco.json")["images"]
    found = collections.Counter((image["split"], image["filepath"]) for image in images)
    assert found == {
        ("train", "train2014"): 40,
        ("restval", "val2014"): 6,
        ("val", "val2014"): 10,
        ("test", "val2014"): 10,
    }
    for image in images:
        assert image["filename"] == f"COCO_{image['filepath']}_{image['cocoid']:012d}.jpg"
        with Image.open(raw / image["filepath"] / image["filename"]) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (IMAGE_SIZE, IMAGE_SIZE), "RGB")


@pytest.mark.parametrize("subset", ["train2014", "val2014"])
def test_questions_and_annotations_have_the_official_shape(raw: Path, subset: str) -> None:
    questions = _load(raw / f"v2_OpenEnded_mscoco_{subset}_questions.json")
    annotations = _load(raw / f"v2_mscoco_{subset}_annotations.json")
    assert set(questions) == {"info", "license", "data_type", "data_subtype", "task_type", "questions"}
    assert set(annotations) == {"info", "license", "data_type", "data_subtype", "annotations"}
    assert questions["data_subtype"] == annotations["data_subtype"] == subset
    ids = [question["question_id"] for question in questions["questions"]]
    assert ids == [annotation["question_id"] for annotation in annotations["annotations"]]
    assert len(set(ids)) == len(ids) == QUESTIONS_PER_IMAGE * (40 if subset == "train2014" else 26)
    for question, annotation in zip(questions["questions"], annotations["annotations"], strict=True):
        assert set(question) == {"image_id", "question", "question_id"}
        assert question["image_id"] == annotation["image_id"] == question["question_id"] // 1000
        assert [answer["answer_id"] for answer in annotation["answers"]] == list(range(1, 11))
        assert {answer["answer_confidence"] for answer in annotation["answers"]} <= {"yes", "maybe", "no"}
        assert annotation["answer_type"] in {"yes/no", "number", "other"}


def test_a_question_is_worded_as_asked_for_with_the_type_of_its_sentence(tmp_path: Path) -> None:
    rows: dict[str, list[tuple[str, str]]] = {}
    wordings: tuple[Wording, ...] = ("sentences", "keywords")
    for wording in wordings:
        write_scenes(tmp_path / wording, num_train=40, num_restval=0, num_val=0, num_test=0, wording=wording)
        questions = _load(tmp_path / wording / "v2_OpenEnded_mscoco_train2014_questions.json")["questions"]
        kinds = _load(tmp_path / wording / "v2_mscoco_train2014_annotations.json")["annotations"]
        rows[wording] = [(q["question"], k["question_type"]) for q, k in zip(questions, kinds, strict=True)]
    assert all(text.lower().startswith(kind) and text.endswith("?") for text, kind in rows["sentences"])
    assert not any(text.lower().startswith(kind) or text.endswith("?") for text, kind in rows["keywords"])


def test_keywords_say_what_the_sentence_says() -> None:
    rng = random.Random(14)
    left_out = {"is", "are", "there", "a", "an", "any", "the", "in", "picture", "than", "and", "to", "what", "of", "on",
                "at", "how", "many", "where", "object"}  # fmt: skip
    for _ in range(400):
        for question in draw_questions(draw_scene(rng, "train"), 4, rng):
            said = set(question.text.lower().rstrip("?").split()) - left_out
            assert said <= set(question.keywords.split()), question
            assert len(question.keywords.split()) < len(question.text.split()), question


def test_annotators_rarely_outvote_the_truth(tmp_path: Path) -> None:
    write_scenes(tmp_path / "raw", num_train=0, num_restval=0, num_val=0, num_test=100)
    annotations = _load(tmp_path / "raw" / "v2_mscoco_val2014_annotations.json")["annotations"]
    votes = [sum(a["answer"] == row["multiple_choice_answer"] for a in row["answers"]) for row in annotations]
    assert min(votes) >= 5
    assert 0.3 < np.mean(np.array(votes) < 10) < 0.7


def test_caption_files_open_in_pycocotools_and_share_ids_with_karpathy(raw: Path) -> None:
    karpathy = {image["cocoid"]: image for image in _load(raw / "dataset_coco.json")["images"]}
    seen = set()
    for subset in ("train2014", "val2014"):
        coco = COCO(str(raw / "annotations" / f"captions_{subset}.json"))
        for image_id in coco.getImgIds():
            captions = {row["id"]: row["caption"] for row in coco.loadAnns(coco.getAnnIds(imgIds=image_id))}
            image = karpathy[image_id]
            assert captions == {s["sentid"]: s["raw"] for s in image["sentences"]}
            assert sorted(captions) == sorted(image["sentids"])
            assert len(captions) == 5
            seen.add(image_id)
    assert seen == set(karpathy)


@pytest.mark.parametrize(
    ("counts", "message"), [((-1, 0, 0, 1), "must be >= 0 and not all 0.*-1"), ((0, 0, 0, 0), "not all 0")]
)
def test_bad_counts_are_refused(tmp_path: Path, counts: tuple[int, int, int, int], message: str) -> None:
    train, restval, val, test = counts
    with pytest.raises(DataError, match=message):
        write_scenes(tmp_path / "raw", num_train=train, num_restval=restval, num_val=val, num_test=test)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not an empty folder"):
        write_scenes(tmp_path, **COUNTS)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_remains_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "raw.incomplete").mkdir()
    (tmp_path / "raw.incomplete" / "half.json").write_text("{")
    (tmp_path / "raw").mkdir()  # an empty folder is fine
    write_scenes(tmp_path / "raw", num_train=2, num_restval=0, num_val=0, num_test=0)
    assert not (tmp_path / "raw.incomplete").exists()
    assert not (tmp_path / "raw" / "half.json").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match="raw: cannot write the scenes: No space left on device"):
        write_scenes(tmp_path / "raw", num_train=2, num_restval=0, num_val=0, num_test=0)
    assert not list(tmp_path.iterdir())


def test_an_object_is_drawn_inside_its_cell_in_its_colour() -> None:
    for cell in range(len(POSITIONS)):
        scene = Scene("black", (SceneObject(cell, "yellow", "square", "small"),))
        lit = draw_image(scene, seed=cell)[..., 0] > 120
        rows, columns = np.nonzero(lit)
        assert len(rows) > 50
        assert set(rows // CELL_SIZE) == {cell // 3}
        assert set(columns // CELL_SIZE) == {cell % 3}


def test_variants_differ_from_their_scene_and_stay_valid() -> None:
    rng = random.Random(5)
    changed = 0
    for _ in range(200):
        scene = draw_scene(rng, "pretrain")
        variant = draw_variant(rng, scene)
        changed += variant.key != scene.key
        assert len({item.cell for item in variant.objects}) == len(variant.objects) == len(scene.objects)
        assert list(variant.objects) == sorted(variant.objects, key=lambda item: item.cell)
    assert changed > 150  # a swap of equal attributes changes nothing


def _check_answer(scene: Scene, question: Question) -> bool | None:
    """Answers the plain forms again, from the words of the question alone; None for the other forms."""
    words = question.text.rstrip("?").lower().split()
    wanted = {f: w for f, values in (("size", SIZES), ("color", COLORS)) for w in words if w in values}
    shapes = {name: s for s in SHAPES for name in (s, plural(s))}
    found_shapes = [shapes[w] for w in words if w in shapes]
    matching = [
        o
        for o in scene.objects
        if all(getattr(o, f) == v for f, v in wanted.items() if f != "color" or v in COLORS)
        and all(o.shape == s for s in found_shapes)
    ]
    if question.question_type == "how many":
        return question.answer == str(len(matching))
    if question.question_type in ("is there a", "is there an", "are there any"):
        return question.answer == ("yes" if matching else "no")
    if question.question_type == "where is the":
        return [o.position for o in matching] == [question.answer]
    return None


def test_answers_are_right_and_referents_unique() -> None:
    rng = random.Random(11)
    checked = 0
    for _ in range(400):
        scene = draw_scene(rng, "train")
        for question in draw_questions(scene, 6, rng):
            is_right = _check_answer(scene, question)
            assert is_right is not False, (scene.key, question)
            checked += is_right is not None
    assert checked > 700


def test_questions_are_balanced() -> None:
    rng = random.Random(12)
    questions = [q for _ in range(2500) for q in draw_questions(draw_scene(rng, "train"), 4, rng)]
    shares = collections.Counter(q.answer_type for q in questions)
    for answer_type, share in (("yes/no", 0.38), ("number", 0.14), ("other", 0.48)):
        assert shares[answer_type] / len(questions) == pytest.approx(share, abs=0.03)
    forms: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for q in questions:
        forms[q.question_type][q.answer] += 1
    for name in ("is the", "are the", "is there a", "are there any", "is there"):
        total = forms[name].total()
        assert forms[name]["yes"] / total == pytest.approx(0.5, abs=0.05 + 1.5 / total**0.5), name  # 3 sigma + 5 points
    assert max(forms["how many"].values()) / forms["how many"].total() < 0.4
    assert max(forms["what color is the"].values()) / forms["what color is the"].total() < 0.2


@pytest.mark.parametrize("wording", ["sentences", "keywords"])
def test_captions_name_every_object(wording: Wording) -> None:
    rng = random.Random(13)
    for _ in range(100):
        scene = draw_scene(rng, "train")
        captions = draw_captions(scene, rng, wording)
        assert len(captions) == 5
        for caption in captions:
            assert all(f"{o.color} {o.shape}" in caption.lower() for o in scene.objects)
