"""Answers as lmms-eval and VLMEvalKit write them, with the official scorers."""

import csv
import gzip
import json
import pickle

import pytest

from dept_vl.cli import main
from dept_vl.inference.verify import read_record, verify_file
from dept_vl.system import extras
from dept_vl.system.extras import is_installed
from dept_vl.tasks.vqa_answers import normalise_answer
from tests.data_prep.raw_files import write_json

POST_PROMPT = "\nAnswer the question using a single word or phrase."
SHEETS = pytest.mark.skipif(not is_installed("xlsx"), reason="needs the extra xlsx")


def unpacked(path, folder):
    target = folder / path.name.removesuffix(".gz")
    target.write_bytes(gzip.decompress(path.read_bytes()))
    return target


@pytest.fixture
def vqa(excerpt, tmp_path):
    """Real questions, their ten answers, and what the first of the ten said as "The " + capitals + "!"."""
    questions = unpacked(excerpt / "vqa" / "questions.json.gz", tmp_path)
    annotations = unpacked(excerpt / "vqa" / "annotations.json.gz", tmp_path)
    messy = json.loads((excerpt / "vqa" / "results_first_annotator_messy.json").read_text())
    return questions, annotations, {one["question_id"]: one["answer"] for one in messy}


def lines(folder, rows, name="20261101_samples_vqav2_val.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def val_samples(questions, answers):
    """Samples of vqav2_val: known by their number in the split, since its scorer's output names no question."""
    asked = json.loads(questions.read_text())["questions"]
    return [
        {
            "doc_id": number, "target": "yes", "filtered_resps": answers[one["question_id"]], "doc_hash": "0",
            "token_counts": [None], "exact_match": 0.3, "input": one["question"] + POST_PROMPT,
        }
        for number, one in enumerate(asked)
    ]  # fmt: skip


def test_samples(questions, answers):
    """Samples of a task whose scorer names the question, and holds an answer that it has normalised already."""
    return [
        {**row, "filtered_resps": [row["filtered_resps"]], "submission": {"question_id": key, "answer": "normalised"}}
        for row, key in zip(val_samples(questions, answers), answers, strict=True)
    ]


test_samples.__test__ = False


def score(capsys, path, *words):
    """Returns scores, and whether they are made again from what was recorded of them."""
    output = path.with_name("scores.json")
    assert main(["eval", "--predictions", str(path), "--output", str(output), *map(str, words)]) == 0, (
        capsys.readouterr()
    )
    assert verify_file(read_record(output)) == []
    return json.loads(output.read_text())["metrics"]


def refusal(capsys, path, *words):
    capsys.readouterr()
    assert main(["eval", "--predictions", str(path), *map(str, words)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


def normalised_always(answer, people):
    """The accuracy of a question as lmms-eval's vqav2 and VLMEvalKit compute it."""
    answer, people = normalise_answer(answer), [normalise_answer(one) for one in people]
    return sum(min(1, (people[:n] + people[n + 1 :]).count(answer) / 3) for n in range(len(people))) / len(people)


@pytest.mark.parametrize("samples", [val_samples, test_samples])
def test_the_official_rule_is_not_to_normalise_always(capsys, vqa, excerpt, tmp_path, samples):
    questions, annotations, answers = vqa
    files = ("--questions", questions, "--annotations", annotations)
    found = score(capsys, lines(tmp_path, samples(questions, answers)), "--task", "vqa", *files)["vqa_accuracy"]
    recorded = json.loads((excerpt / "vqa" / "scores.json").read_text())["first_annotator_messy"]
    assert found == recorded["official"]["overall"]
    people = {
        one["question_id"]: [answer["answer"] for answer in one["answers"]]
        for one in json.loads(annotations.read_text())["annotations"]
    }
    always = [normalised_always(answers[key], texts) for key, texts in people.items()]
    other = 100 * sum(always) / len(always)
    assert (round(found, 1), round(other, 1)) == (56.8, 89.7)


@pytest.fixture
def caption_files(excerpt, tmp_path):
    """Real captions of a model, and the 2017 files' captions of their images alone."""
    results = json.loads((excerpt / "captions" / "results_vinvl.json").read_text())
    ids = [one["image_id"] for one in results]
    content = {"images": [], "annotations": []}
    for name in ("captions_train2017.json.gz", "captions_val2017.json.gz"):
        whole = json.loads(gzip.decompress((excerpt / "captions" / name).read_bytes()))
        for key, field in (("images", "id"), ("annotations", "image_id")):
            content[key] += [one for one in whole[key] if one[field] in ids]
    content["images"].sort(key=lambda one: ids.index(one["id"]))
    return write_json(tmp_path / "captions.json", content), results


def caption_rows(references, results):
    texts = {}
    for one in json.loads(references.read_text())["annotations"]:
        texts.setdefault(one["image_id"], []).append(one["caption"])
    return [(one["image_id"], one["caption"], texts[one["image_id"]]) for one in results]


def coco_samples(rows):
    for number, (image_id, caption, texts) in enumerate(rows):
        held = {"answer": texts, "pred": caption, "image_id": image_id, "id": number}
        yield {
            "doc_id": number, "target": str(texts), "filtered_resps": caption, "input": "Describe the image briefly.",
            **{f"coco_{name}": held for name in ("Bleu_4", "CIDEr")},
        }  # fmt: skip


def test_captions_of_lmms_eval_score_as_official_results_do(capsys, caption_files, tmp_path):
    references, results = caption_files
    files = ("--task", "coco", "--metric", "CIDEr", "--references", references)
    expected = score(capsys, write_json(tmp_path / "official.json", results), *files)
    samples = lines(tmp_path, coco_samples(caption_rows(references, results)), "samples_coco2014_cap_val.jsonl")
    assert score(capsys, samples, *files) == expected
    capsys.readouterr()
    assert score(capsys, samples, "--task", "coco", "--metric", "CIDEr") == pytest.approx(expected)


def sheet(path, rows):
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def records(path, rows):
    header, *rest = rows
    return write_json(path, [dict(zip(header, row, strict=True)) for row in rest])


@pytest.mark.parametrize(
    ("write", "name"),
    [(table, "m_COCO_VAL.tsv"), (records, "m_COCO_VAL.json"), pytest.param(sheet, "m_COCO_VAL.xlsx", marks=SHEETS)],
)
def test_captions_of_vlmevalkit_score_as_official_results_do(capsys, caplog, caption_files, tmp_path, write, name):
    references, results = caption_files
    rows = caption_rows(references, results)
    files = ("--task", "coco", "--metric", "CIDEr", "--references", references)
    expected = score(capsys, write_json(tmp_path / "official.json", results), *files)
    named = [
        ("index", "image_id", "answer", "prediction"),
        *((n, i, str(texts), text) for n, (i, text, texts) in enumerate(rows)),
    ]
    assert score(capsys, write(tmp_path / name, named), *files) == expected
    plain = [("index", "answer", "prediction"), *((n, str(texts), text) for n, (_, text, texts) in enumerate(rows))]
    assert score(capsys, write(tmp_path / name, plain), "--task", "coco", "--metric", "CIDEr") == pytest.approx(
        expected
    )
    assert "scored against the answers in the file itself, as VLMEvalKit has them" in caplog.text


@SHEETS
def test_an_answer_that_a_sheet_takes_for_a_formula_is_that_answer(capsys, tmp_path):
    rows = [("index", "answer", "prediction"), (0, "['=2 red dogs']", "=2 red dogs"), (1, "['a cat']", "a dog")]
    files = ("--task", "coco", "--metric", "BLEU")
    expected = score(capsys, records(tmp_path / "m.json", rows), *files)
    assert score(capsys, sheet(tmp_path / "m.xlsx", rows), *files) == expected
    assert expected["BLEU-1"] > 0


@pytest.mark.parametrize(("write", "name"), [(table, "m_VQA.tsv"), (records, "m_VQA.json")])
@pytest.mark.parametrize("id_keys", [("index",), ("index", "question_id")])
def test_what_people_said_is_not_taken_for_what_a_model_predicts(capsys, vqa, excerpt, tmp_path, write, name, id_keys):
    questions, annotations, answers = vqa
    rows = [(*(key for _ in id_keys), "said by people", text) for key, text in answers.items()]
    path = write(tmp_path / name, [(*id_keys, "answer", "prediction"), *rows])
    found = score(capsys, path, "--task", "vqa", "--questions", questions, "--annotations", annotations)
    recorded = json.loads((excerpt / "vqa" / "scores.json").read_text())["first_annotator_messy"]
    assert found["vqa_accuracy"] == recorded["official"]["overall"]


def test_answers_that_a_model_did_not_give_are_said(capsys, caplog, vqa, tmp_path):
    questions, annotations, answers = vqa
    texts = ["Failed to obtain answer via API.", "", *list(answers.values())[2:]]
    path = table(tmp_path / "m_VQA.tsv", [("index", "prediction"), *zip(answers, texts, strict=True)])
    score(capsys, path, "--task", "vqa", "--questions", questions, "--annotations", annotations)
    assert "1 of 149 answers are 'Failed to obtain answer'" in caplog.text


def test_rows_that_are_not_those_of_the_split(capsys, vqa, tmp_path):
    questions, annotations, answers = vqa
    files = ("--task", "vqa", "--questions", questions, "--annotations", annotations)
    rows = val_samples(questions, answers)
    asked_otherwise = [{**rows[0], "input": "Is this another split?"}, *rows[1:]]
    said = refusal(capsys, lines(tmp_path, asked_otherwise), *files)
    assert "line 1: asked str 'Is this another split?', and question 0 of" in said
    assert "rows name no question, so those of the whole split in its order are needed" in said
    said = refusal(capsys, lines(tmp_path, [{**rows[0], "doc_id": 149}]), *files)
    assert "doc_id int 149, and" in said
    assert "has 149 questions" in said
    named = [{**row, "submission": {"question_id": 7, "answer": ""}} for row in rows[:1]]
    assert "1 of 1 predictions have question ids that are not among the 149" in refusal(
        capsys, lines(tmp_path, named), *files
    )
    other = table(tmp_path / "m.tsv", [("index", "prediction"), (3, "a")])
    assert "1 of 1 predictions have question ids that are not among" in refusal(capsys, other, *files)


def test_rows_that_are_missing_or_there_twice(capsys, vqa, tmp_path):
    questions, annotations, answers = vqa
    files = ("--task", "vqa", "--questions", questions, "--annotations", annotations)
    rows = val_samples(questions, answers)
    assert "predictions missing for 1 of 149 questions" in refusal(capsys, lines(tmp_path, rows[:-1]), *files)
    assert main(["eval", *map(str, files), "--predictions", str(lines(tmp_path, rows[:-1])), "--allow-missing"]) == 0
    said = refusal(capsys, lines(tmp_path, [*rows, rows[2]]), *files)
    assert "line 150: question_id" in said
    assert "stands in line 3 too" in said
    assert "lmms-eval writes behind what a run of the same name wrote before" in said
    first = next(iter(answers))
    twice = table(tmp_path / "m.tsv", [("index", "prediction"), (first, "a"), (first, "a")])
    assert f"row 3: question_id {first} stands in row 2 too" in refusal(capsys, twice, *files)


class Evil:
    def __reduce__(self):
        return (print, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["m_COCO_VAL.pkl", "m.pickle", "m_COCO_VAL.json", "m.txt"])
def test_a_pickle_is_never_opened(capsys, caption_files, tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    said = refusal(capsys, tmp_path / name, "--task", "coco", "--references", caption_files[0])
    assert "a pickle may hold code and is never opened; let VLMEvalKit write a table (PRED_FORMAT=tsv, or xlsx)" in said
    assert "a pickle was opened" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("own.jsonl", '{"question": "a?", "greedy": "b"}\n', "line 1: no sample of lmms-eval (--log_samples)"),
        ("cut.jsonl", '{"doc_id": 0, "filtered', "line 1: not valid JSON"),
        ("empty.jsonl", "", "no answers in it"),
        ("two.jsonl", '{"doc_id": 0, "filtered_resps": ["a", "b"], "s": {"question_id": 1}}\n', "should hold one text"),
        ("id.jsonl", '{"doc_id": 0, "filtered_resps": "a", "s": {"question_id": "x"}}\n', "should be a whole number"),
        ("columns.tsv", '"question"\t"answer"\n"a"\t"b"\n', "its columns are question, answer"),
        ("ragged.tsv", '"index"\t"prediction"\n"1"\n', "row 2: has 1 cells, and 2 columns are named"),
        ("quote.tsv", '"index"\t"prediction"\n"1"\t"a\n', "line"),
        ("twice.tsv", '"index"\t"index"\n', "two of its columns have one name"),
        ("number.json", '[{"index": 1, "prediction": 1.5}]', "record 0: prediction should be a text, got float 1.5"),
        (
            "long.tsv",
            f"index\tprediction\n{'9' * 5000}\ta\n",
            "row 2: question_id should be a whole number, got str '999",
        ),
        ("no.xlsx", "no sheet", "no sheet that can be read"),
        ("answers.yaml", "a: 1", "expected a list, each entry an object with 'question_id' and 'answer'"),
    ],
)
def test_files_of_no_known_form(capsys, vqa, tmp_path, name, content, match):
    if name.endswith("xlsx") and not is_installed("xlsx"):
        pytest.skip("needs the extra xlsx")
    (tmp_path / name).write_text(content)
    said = refusal(capsys, tmp_path / name, "--task", "vqa", "--questions", vqa[0], "--annotations", vqa[1])
    assert match in said
    assert name in said


def test_rows_without_ids_and_without_questions(capsys, caption_files, tmp_path):
    path = lines(tmp_path, [{"doc_id": 0, "filtered_resps": "a cat", "input": "Describe it."}])
    said = refusal(capsys, path, "--task", "coco", "--references", caption_files[0])
    assert "line 1: names no image_id, so it is not known which row of the split was answered" in said


def test_references_that_are_nowhere(capsys, tmp_path):
    path = table(tmp_path / "m.tsv", [("index", "answer", "prediction"), (1, "[unfinished", "a cat")])
    said = refusal(capsys, path, "--task", "coco")
    assert "task 'coco' with --predictions needs --references; given: none of them" in said


@SHEETS
def test_a_sheet_that_is_a_bomb_or_whose_reader_is_missing(capsys, caption_files, tmp_path, monkeypatch):
    import zipfile

    path = tmp_path / "m.xlsx"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("xl/big.xml", "w", force_zip64=True) as file,
    ):
        for _ in range(65):
            file.write(bytes(1 << 24))
    assert "at most 1,073,741,824 are read" in refusal(capsys, path, "--task", "coco", "--references", caption_files[0])
    monkeypatch.setitem(extras.EXTRAS, "xlsx", ("openpyxl-absent",))
    said = refusal(capsys, path, "--task", "coco", "--references", caption_files[0])
    assert "m.xlsx: a sheet needs openpyxl-absent, which is not installed" in said
