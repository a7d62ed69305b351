import gzip
import json
import logging

import pytest

from dept_vl.errors import DataError
from dept_vl.evaluators.official_files import (
    load_caption_references,
    load_results,
    load_vqa_references,
    write_results,
)

ANSWERS = [{"answer": "yes", "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)]
ANNOTATION = {"question_id": 10, "image_id": 1, "question_type": "is the", "answer_type": "yes/no", "answers": ANSWERS}
QUESTION = {"question_id": 10, "image_id": 1, "question": "Is the sky blue?"}


def write(path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("id_key", "text_key"), [("question_id", "answer"), ("image_id", "caption")])
def test_results_survive_writing_and_reading(tmp_path, id_key, text_key):
    path = tmp_path / "new" / "results.json"
    predictions = {7: "yes", 3: "naïve “café”", 5: ""}
    write_results(path, predictions, id_key, text_key)
    assert json.loads(path.read_text()) == [{id_key: i, text_key: text} for i, text in predictions.items()]
    assert load_results(path, id_key, text_key) == predictions
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write(tmp_path / "results.json", "old")
    with pytest.raises(TypeError):
        write_results(path, {1: object()}, "question_id", "answer")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_compressed_results_are_read(tmp_path):
    path = tmp_path / "results.json.gz"
    path.write_bytes(gzip.compress(b'[{"question_id": 1, "answer": "x", "more": 2}]'))
    assert load_results(path, "question_id", "answer") == {1: "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"question_id": 1, "answer": "x"}, {"quest',
            r"results.json: not valid JSON at byte 37 .*line 1, column 38.*get it again",
        ),
        ("", r"not valid JSON at byte 0 of 0 .line 1, column 1."),
        ({"question_id": 1, "answer": "x"}, "expected a list, each entry an object with 'question_id' and 'answer'"),
        ([{"question_id": 1, "answer": "x"}, "yes"], "record 1: expected an object .* got 'yes'"),
        ([{"answer": "x"}], r"record 0: missing \"question_id\"; it has \['answer'\]"),
        ([{"question_id": 1}], 'record 0: missing "answer"'),
        ([{"question_id": "1", "answer": "x"}], "record 0: \"question_id\" must be an integer, got '1'"),
        ([{"question_id": True, "answer": "x"}], '"question_id" must be an integer, got True'),
        ([{"question_id": 1, "answer": 2}], 'record 0: "answer" must be a string, got 2'),
        (
            [{"question_id": 1, "answer": "x"}, {"question_id": 1, "answer": "x"}],
            "record 1: question_id 1 occurs twice",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_results_name_file_and_record(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_results(write(tmp_path / "results.json", content), "question_id", "answer")


def test_unreadable_files_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"absent.json: cannot be read: No such file"):
        load_results(tmp_path / "absent.json", "question_id", "answer")
    with pytest.raises(DataError, match="cannot be read"):
        load_results(tmp_path, "question_id", "answer")
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(DataError, match="not UTF-8 text at byte 2"):
        load_results(tmp_path / "latin.json", "question_id", "answer")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"[]" * 1000)[:20])
    with pytest.raises(DataError, match=r"cut.gz: the compressed file is cut short or damaged"):
        load_results(tmp_path / "cut.gz", "question_id", "answer")
    (tmp_path / "damaged.gz").write_bytes(gzip.compress(b"[]")[:12] + b"\xff" * 20)
    with pytest.raises(DataError, match=r"damaged.gz: the compressed file is cut short or damaged"):
        load_results(tmp_path / "damaged.gz", "question_id", "answer")


def load_vqa(tmp_path, questions, annotations):
    return load_vqa_references(
        write(tmp_path / "questions.json", questions), write(tmp_path / "annotations.json", annotations)
    )


def test_vqa_references_carry_answers_and_types(tmp_path):
    references = load_vqa(tmp_path, {"questions": [QUESTION]}, {"annotations": [ANNOTATION]})
    reference = references[10]
    assert list(references) == [10]
    assert reference.references == ["yes"] * 10
    assert (reference.answer_type, reference.question_type, reference.example_id) == ("yes/no", "is the", 10)
    assert reference.annotators is None


def test_answers_that_are_equal_records_are_marked(tmp_path):
    annotation = {**ANNOTATION, "answers": [{"answer": "yes"}, {"answer": "no"}]}
    reference = load_vqa(tmp_path, {"questions": [QUESTION]}, {"annotations": [annotation]})[10]
    assert reference.annotators is not None
    assert len(set(reference.annotators)) == 1


def test_questions_without_annotation_are_left_out_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        questions = [QUESTION, {**QUESTION, "question_id": 11}]
        assert list(load_vqa(tmp_path, {"questions": questions}, {"annotations": [ANNOTATION]})) == [10]
    assert "1 of 2 questions have no annotation" in caplog.text


@pytest.mark.parametrize(
    ("questions", "annotation", "message"),
    [
        ([QUESTION] * 2, ANNOTATION, r"questions.json, questions\[1\]: question_id 10 occurs twice"),
        (
            [],
            ANNOTATION,
            r"annotations\[0\]: question_id 10 is not in .*questions.json; give the two files of one split",
        ),
        ([{**QUESTION, "image_id": 2}], ANNOTATION, "image_id 1, but .*questions.json has image 2 for question 10"),
        ([QUESTION], {**ANNOTATION, "answers": []}, r"annotations\[0\]: \"answers\" is empty"),
        ([QUESTION], {**ANNOTATION, "answers": ["yes"]}, r"answers\[0\]: expected an object, got 'yes'"),
        ([QUESTION], {**ANNOTATION, "answers": [{"answer": 2}]}, r"answers\[0\]: \"answer\" must be a string"),
        ([QUESTION], {**ANNOTATION, "answer_type": None}, '"answer_type" must be a string, got None'),
        ([QUESTION], 3, r"annotations\[0\]: expected an object, got 3"),
        ([{"question_id": 10}], ANNOTATION, r"questions\[0\]: missing \"image_id\""),
    ],
)
def test_malformed_vqa_references_name_file_and_record(tmp_path, questions, annotation, message):
    with pytest.raises(DataError, match=message):
        load_vqa(tmp_path, {"questions": questions}, {"annotations": [annotation]})


def test_swapped_vqa_files_are_told(tmp_path):
    with pytest.raises(
        DataError, match=r"expected an object with a list \"questions\", got the keys \['annotations'\]"
    ):
        load_vqa(tmp_path, {"annotations": [ANNOTATION]}, {"questions": [QUESTION]})


def test_twice_annotated_questions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"annotations\[1\]: question_id 10 occurs twice"):
        load_vqa(tmp_path, {"questions": [QUESTION]}, {"annotations": [ANNOTATION] * 2})


def test_caption_references_follow_the_images_of_the_file(tmp_path, caplog):
    content = {
        "images": [{"id": 2}, {"id": 1}, {"id": 3}],
        "annotations": [
            {"image_id": 1, "id": 5, "caption": "a cat"},
            {"image_id": 2, "id": 6, "caption": "a dog"},
            {"image_id": 1, "id": 7, "caption": "one cat"},
        ],
    }
    with caplog.at_level(logging.WARNING):
        references = load_caption_references(write(tmp_path / "captions.json", content))
    assert {i: list(reference.references) for i, reference in references.items()} == {
        2: ["a dog"],
        1: ["a cat", "one cat"],
    }
    assert list(references) == [2, 1]
    assert "1 images have no captions" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"expected an object with a list \"images\", got \[\]"),
        ({"images": []}, r"expected an object with a list \"annotations\", got the keys \['images'\]"),
        ({"images": [{"id": 1}, {"id": 1}], "annotations": []}, r"images\[1\]: image id 1 occurs twice"),
        ({"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}, 'image_id 1 is not among the "images"'),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 1}]}, r"annotations\[0\]: missing \"caption\""),
    ],
)
def test_malformed_caption_references_name_file_and_record(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_caption_references(write(tmp_path / "captions.json", content))


def test_a_real_captions_file(excerpt):
    path = excerpt / "captions" / "captions_val2017.json.gz"
    content = json.loads(gzip.decompress(path.read_bytes()))
    found = {image_id: list(reference.references) for image_id, reference in load_caption_references(path).items()}
    expected = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        expected[annotation["image_id"]].append(annotation["caption"])
    assert found == expected
    assert len(found) == 130


def test_real_results_files(excerpt):
    outputs = load_results(excerpt / "captions" / "results_vinvl.json", "image_id", "caption")
    assert len(outputs) == 100
    assert outputs[85329] == "a close up of a person with a tie and a shirt"
    assert len(load_results(excerpt / "vqa" / "results_majority.json", "question_id", "answer")) == 149


def test_complete_real_files(shared_data):
    references = load_caption_references(shared_data / "coco_captions_official" / "captions_val2017.json.gz")
    assert len(references) == 5000
    assert sum(len(reference.references) for reference in references.values()) == 25014
    assert references[179765].references[0] == "A black Honda motorcycle parked in front of a garage."
    fakecap = load_results(
        shared_data / "coco_fakecap" / "captions_val2014_fakecap_results.json", "image_id", "caption"
    )
    assert len(fakecap) == 1000
    okvqa = next((shared_data / "okvqa_format").glob("coco14_promptC*"))
    assert len(load_results(okvqa, "question_id", "answer")) == 5046
