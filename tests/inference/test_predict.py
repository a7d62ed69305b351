"""Reading what to predict, and what is done about images that cannot be read."""

import gzip
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from dept_vl.errors import ConfigError, DataError
from dept_vl.inference.inputs import PredictionInput, Questions, check_inputs, read_inputs
from dept_vl.inference.predict import choose_ways
from dept_vl.runs.decoding import Decoding
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task

VQA = load_config(None, {"task": "vqa"})


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def test_only_line_feeds_end_a_line_of_jsonl(tmp_path):
    texts = ["one\u2028still one", "two\x85still two"]
    file = tmp_path / "inputs.jsonl"
    file.write_text("".join(json.dumps({"sentence": text}, ensure_ascii=False) + "\r\n" for text in texts))
    inputs = read_inputs(get_task("cola"), file=file, columns={})
    assert [item.columns["sentence"] for item in inputs] == texts


def test_a_message_about_a_line_names_file_and_line(tmp_path, images):
    lines = [{"image": "images/a.jpg", "question": "a?"}, {"image": "gone.jpg", "question": "b?"}]
    file = write_lines(tmp_path / "in.jsonl", *lines)
    inputs = read_inputs(get_task("vqa"), file=file, columns={})
    with pytest.raises(DataError, match=r"in.jsonl, line 2: .*gone.jpg: no such image file; --on-error skip answers"):
        check_inputs(VQA, inputs, num_beams=None, on_error="stop")
    write_lines(file, lines[0], {"image": "images/a.jpg"})
    with pytest.raises(ConfigError, match=r"in.jsonl, line 2: task 'vqa' needs a question"):
        read_inputs(get_task("vqa"), file=file, columns={})
    write_lines(file, {"sentence": ["a"]})
    with pytest.raises(DataError, match=r"in.jsonl, line 1: column 'sentence' should be a text"):
        read_inputs(get_task("cola"), file=file, columns={})
    write_lines(file, {"image": "a.jpg", "question": "a?", "references": "red"})
    with pytest.raises(DataError, match=r'in.jsonl, line 1: "references" should be a list of texts, found red'):
        read_inputs(get_task("vqa"), file=file, columns={})


def test_images_that_cannot_be_read_are_skipped_and_said(images, caplog):
    (images / "c.jpg").write_bytes(b"x")
    inputs = read_inputs(get_task("vqa"), images=[images], columns={"question": "what?"})
    kept = check_inputs(VQA, inputs, num_beams=None, on_error="skip")
    assert [item.images[0].name for item in kept] == ["a.jpg", "b.jpg"]
    assert "1 of 3 inputs are left out, as their image cannot be read" in caplog.text
    assert "c.jpg: not an image" in caplog.text


def test_a_run_that_ignores_exif_says_which_pictures_stay_turned(images, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 4)).save(images / "phone.jpg", exif=exif)
    inputs = read_inputs(get_task("vqa"), images=[images], columns={"question": "what?"})
    check_inputs(VQA, inputs, num_beams=None, on_error="stop")
    assert caplog.text == ""
    old = load_config(None, {"task": "vqa", "model.image_encoder.exif": "ignore"})
    check_inputs(old, inputs, num_beams=None, on_error="stop")
    assert "1 of the images are stored turned, and their EXIF rotation is not applied" in caplog.text
    assert "phone.jpg" in caplog.text


def test_paths_in_a_pipe_start_in_the_current_folder(images, monkeypatch):
    monkeypatch.chdir(images)
    end, writer = os.pipe()
    os.write(writer, b'{"image": "a.jpg", "question": "what?", "question_id": 7}\n')
    os.close(writer)
    (item,) = read_inputs(get_task("vqa"), file=Path(f"/dev/fd/{end}"), columns={})
    os.close(end)
    assert (item.images, item.example_id) == ((Path("a.jpg"),), 7)


def test_packed_lines_are_lines_under_either_flag(tmp_path, images):
    file = tmp_path / "in.JSONL.gz"
    file.write_bytes(gzip.compress(b'\xef\xbb\xbf{"image": "images/a.jpg", "question": "what?"}\n'))
    as_file, as_image = (
        read_inputs(get_task("vqa"), file=file, columns={}),
        read_inputs(get_task("vqa"), images=[file], columns={}),
    )
    assert as_file == as_image == [PredictionInput((images / "a.jpg",), {"question": "what?"}, f"{file}, line 1")]


def test_official_questions_bring_images_ids_and_people(tmp_path, images):
    (images / "test2015").mkdir()
    official = images / "test2015" / "COCO_test2015_000000000042.jpg"
    Image.new("RGB", (4, 4)).save(official)
    Image.new("RGB", (4, 4)).save(images / "7.jpg")
    asked = [
        {"question_id": 420, "image_id": 42, "question": "a?"},
        {"question_id": 71, "image_id": 7, "question": "b?"},
    ]
    file = tmp_path / "q.json"
    file.write_text(json.dumps({"questions": asked, "data_subtype": "test-dev2015"}))
    inputs = read_inputs(get_task("vqa"), questions=Questions(file, images), columns={})
    assert inputs == [
        PredictionInput((official,), {"question": "a?"}, f"{file}, question 420", 420),
        PredictionInput((images / "7.jpg",), {"question": "b?"}, f"{file}, question 71", 71),
    ]
    answers = [{"answer": text, "answer_id": n} for n, text in enumerate(["red", "blue"])]
    annotation = {"image_id": 42, "question_id": 420, "answers": answers, "answer_type": "x", "question_type": "y"}
    (tmp_path / "a.json").write_text(json.dumps({"annotations": [annotation]}))
    inputs = read_inputs(get_task("vqa"), questions=Questions(file, images, tmp_path / "a.json"), columns={})
    assert [item.references for item in inputs] == [("red", "blue"), ()]
    (images / "7.jpg").unlink()
    inputs = read_inputs(get_task("vqa"), questions=Questions(file, images), columns={})
    with pytest.raises(
        DataError, match=r"q.json, question 71: .*images/test2015/COCO_test2015_000000000007.jpg: no su"
    ):
        check_inputs(VQA, inputs, num_beams=None, on_error="stop")
    assert len(check_inputs(VQA, inputs, num_beams=None, on_error="skip")) == 1
    with pytest.raises(ConfigError, match="--questions: task 'coco' has no official questions"):
        read_inputs(get_task("coco"), questions=Questions(file, images), columns={})


def test_a_caption_of_a_coco_image_has_its_id(images):
    Image.new("RGB", (4, 4)).save(images / "COCO_test2014_000000000005.jpg")
    inputs = read_inputs(get_task("coco"), images=[images], columns={})
    assert [item.example_id for item in inputs] == [5, None, None]


@pytest.mark.parametrize(
    ("num_beams", "as_scored", "ways"),
    [
        (None, False, {"greedy": 1, "beam 5": 5}),
        (0, False, {"greedy": 1}),
        (1, False, {"greedy": 1}),
        (3, False, {"greedy": 1, "beam 3": 3}),
        (None, True, {"beam 2": 2}),
        (0, True, {"greedy": 1}),
        (3, True, {"beam 3": 3}),
    ],
)
def test_how_often_an_input_is_answered(num_beams, as_scored, ways):
    found = choose_ways(Decoding("generate", (), 2, 8), num_beams, as_scored=as_scored)
    assert {name: way.num_beams for name, way in found.items()} == ways
