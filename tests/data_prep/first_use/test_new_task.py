"""`dept-vl new-task` guesses a task from a table, says why, and what it writes loads and prepares as it is."""

import itertools

import datasets
import pytest
from PIL import Image

from data_prep.first_use.new_task import write_new_task
from data_prep.prepare import prepare
from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.settings.declared import read_declaration
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import draw, write_csv, write_jsonl

COUNT = 24
IMAGES = [f"IMG_{n:03d}.JPG" for n in range(12)]
SENTENCES = [f"a picture of thing number {n} on a table beside a window" for n in range(COUNT)]


def rows(**columns):
    """Returns rows of columns, each a list that is repeated as often as it takes."""
    values = {name: itertools.cycle(column) for name, column in columns.items()}
    return [{name: next(column) for name, column in values.items()} for _ in range(COUNT)]


NUMBERS = list(range(COUNT))
QUESTIONS = [f"what is {n}?" for n in NUMBERS]
ANSWERS = [f"thing {n}" for n in NUMBERS]

TABLES = {
    "plain-vqa": (rows(image=IMAGES, question=QUESTIONS, answer=ANSWERS), "question", {"image": "image"}),
    "capitals": (
        rows(**{"Image Name": IMAGES, "Question": QUESTIONS, "Answer": ["yes", "no"]}),
        "question",
        {"image": "Image Name", "target": ("Answer",), "template": "vqa: {Question}"},
    ),
    "ten-answers": (
        rows(question_id=NUMBERS, img=IMAGES, question=QUESTIONS, **{f"answer_{n}": ANSWERS for n in range(10)}),
        "question",
        {
            "id": "question_id",
            "target": tuple(f"answer_{n}" for n in range(10)),
            "metrics": ("vqa-soft-accuracy", "exact-match"),
        },
    ),
    "answers-as-json": (
        rows(image=IMAGES, question=QUESTIONS, answers=['["a", "b", "b"]', '["c"]']),
        "question",
        {
            "target": ("answers",),
            "metrics": ("vqa-soft-accuracy", "exact-match"),
            "primary_metric": "vqa_soft_accuracy",
        },
    ),
    "numbers-of-images": (
        rows(image_id=[*range(12)], question=QUESTIONS, answer=ANSWERS),
        "question",
        {"image": "image_id"},
    ),
    "captions": (rows(file_name=IMAGES, caption=SENTENCES), "caption", {"template": "caption:"}),
    "five-captions": (
        rows(image=IMAGES, **{f"caption_{n}": SENTENCES for n in range(1, 6)}),
        "caption",
        {"target": tuple(f"caption_{n}" for n in range(1, 6))},
    ),
    "image-classes": (
        rows(filepath=IMAGES, label=["cat", "dog", "yes: it's #1"]),
        "image-label",
        {"labels": {"cat": "cat", "dog": "dog", "yes: it's #1": "yes: it's #1"}},
    ),
    "classes-of-another-name": (rows(photo=IMAGES, animal=["cat", "dog"]), "image-label", {"target": ("animal",)}),
    "numbered-classes": (
        rows(text=SENTENCES, label=[0, 1]),
        "text-label",
        {"labels": {"0": "0", "1": "1"}, "template": "text: {text}"},
    ),
    "booleans": (rows(text=SENTENCES, label=["yes", "no"]), "text-label", {"labels": {"no": "no", "yes": "yes"}}),
    "two-texts": (
        rows(idx=NUMBERS, premise=SENTENCES, hypothesis=ANSWERS, class_name=["same", "other"]),
        "text-label",
        {"template": "premise: {premise} hypothesis: {hypothesis}"},
    ),
    "instructions": (
        rows(instruction=QUESTIONS, output=SENTENCES),
        "text",
        {"template": "instruction: {instruction}", "target": ("output",)},
    ),
    "sentiment-without-a-name": (rows(review=SENTENCES, mood=["good", "bad"]), "text-label", {"target": ("mood",)}),
    "with-splits": (
        rows(image=IMAGES, question=QUESTIONS, answer=ANSWERS, split=["train"] * 8 + ["val", "val", "test", "test"]),
        "question",
        {},
    ),
    "with-types": (
        rows(image=IMAGES, question=QUESTIONS, answer=ANSWERS, answer_type=["number", "other"]),
        "question",
        {"details": {"answer_type": "answer_type"}},
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("images"), *IMAGES)


@pytest.mark.parametrize("name", TABLES)
def test_a_typical_table_is_guessed_right_and_prepares_as_it_is(name, images, tmp_path):
    table, kind, fields = TABLES[name]
    path = write_csv(tmp_path / "rows.csv", table, encoding="utf-8-sig")
    file, task = write_new_task(path, images=images, out=tmp_path / "task.yaml")
    declaration = read_declaration(file)
    assert declaration.kind == kind
    assert {field: getattr(declaration, field) for field in fields} == fields
    assert declaration.split.column == ("split" if name == "with-splits" else None)
    assert any(line.startswith(f"kind: {kind} (") for line in task.guessed)
    images = images if declaration.uses_images else None
    stats = prepare(make_task(declaration), None, tmp_path / "out", rows=path, images=images)
    assert set(stats.splits) == {"train", "val", "test"}
    assert not stats.left_out


def test_long_texts_get_room(tmp_path):
    table = rows(article=["word " * 90], summary=["word " * 40])
    for number, row in enumerate(table):
        row["article"] += str(number)
    file, task = write_new_task(write_jsonl(tmp_path / "rows.jsonl", table), out=tmp_path / "a.yaml")
    declaration = read_declaration(file)
    assert declaration.max_source_length == 192
    assert declaration.max_target_length == 88
    assert "max_source_length: 192 tokens, by the texts' length in words" in task.guessed


def test_what_could_not_be_told_is_said(tmp_path):
    table = rows(text=SENTENCES, label=[3, 4], split=["a", "b"], score=NUMBERS)
    _, task = write_new_task(write_csv(tmp_path / "rows.csv", table), out=tmp_path / "a.yaml")
    untold = "\n".join(task.untold)
    _, of_images = write_new_task(write_csv(tmp_path / "b.csv", TABLES["captions"][0]), out=tmp_path / "b.yaml")
    assert of_images.untold == ["where the images are: no name in 'file_name' was found; --images DIR says it"]
    assert "what the labels' numbers mean: put a word behind each" in untold
    assert "whether 'split' (a, b) says the split; if so: split: {column: split, names:" in untold
    assert "what these columns are for: 'split', 'score'" in untold


def test_a_data_sets_pictures_and_classes_are_known_as_such(tmp_path):
    features = datasets.Features(image=datasets.Image(), labels=datasets.ClassLabel(names=["healthy", "rust", "rare"]))
    pictures = [Image.new("RGB", (4, 4), (n, 0, 0)) for n in range(12)]
    table = datasets.Dataset.from_dict({"image": pictures, "labels": [0, 1] * 6}, features=features)
    table.to_parquet(tmp_path / "rows.parquet")
    file, _ = write_new_task(tmp_path / "rows.parquet", out=tmp_path / "a.yaml", name="leaves")
    declaration = read_declaration(file)
    assert (declaration.kind, declaration.label_words) == ("image-label", ("healthy", "rust", "rare"))
    stats = prepare(make_task(declaration), None, tmp_path / "out", rows=tmp_path / "rows.parquet")
    assert stats.splits["train"].images == 10


def test_flags_decide_where_the_guess_is_wrong(images, tmp_path):
    path = write_csv(tmp_path / "rows.csv", rows(a=IMAGES, b=SENTENCES, c=["x", "y"], d=IMAGES))
    with pytest.raises(ConfigError, match="--image-column: several columns look like images \\('a', 'd'\\)"):
        write_new_task(path, images=images)
    file, _ = write_new_task(
        path, images=images, image_column="d", target="b", kind="caption", name="own", out=tmp_path / "b.yaml"
    )
    declaration = read_declaration(file)
    assert (declaration.name, declaration.kind, declaration.image, declaration.target) == (
        "own",
        "caption",
        "d",
        ("b",),
    )


def test_the_command_prints_what_it_guessed_and_what_comes_next(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "cats.csv", TABLES["plain-vqa"][0])
    words = ["new-task", "--from", "cats.csv", "--images", str(images)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "written: cats.yaml" in printed
    assert (
        "guessed: kind: question (a question about an image), as there are images, a question in 'question'" in printed
    )
    assert f"next: dept-vl train --task cats.yaml --rows cats.csv --images {images}" in printed
    assert main(words) == 2
    assert "cats.yaml: is there already; choose another --out, or give --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
