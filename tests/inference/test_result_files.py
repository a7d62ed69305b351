"""Predictions, answers and scores that lie together belong together, and say what they are of."""

import hashlib
import json
import shutil

import pytest

from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.errors import ConfigError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.inference.result_files import settings_sha256
from dept_vl.inference.score_file import evaluate_file
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train
from tests.conftest import tiny_vqa_rows
from tests.data_prep.raw_files import write_raw


@pytest.fixture(scope="module")
def folder(tmp_path_factory, t5_folder, tiny_data):
    """Data, and a run of two steps on them."""
    root = tmp_path_factory.mktemp("results")
    shutil.copytree(tiny_data, root / "data")
    settings = {
        "data.dir": str(root / "data"), "output_dir": str(root / "run"), "model.backbone": str(t5_folder),
        "data.max_source_length": 16, "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8,
        "loop.max_steps": 2, "loop.eval_every_steps": 2,
    }  # fmt: skip
    train(load_config(None, settings), root / "data")
    return root


@pytest.fixture
def run_dir(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    return tmp_path / "run"


def evaluate(folder, run_dir, overrides=None, data=None, **options):
    config = load_config(run_dir / "config.yaml", overrides or {})
    return evaluate_run(config, data or folder / "data", run_dir, **options)


def read(path):
    return json.loads(path.read_text())


def belong_together(files):
    recorded = read(files["scores"])["sha256"]["predictions"]
    return recorded == hashlib.sha256(files["predictions"].read_bytes()).hexdigest()


def contents(run_dir):
    return {path.name: path.read_bytes() for path in run_dir.iterdir() if "-test" in path.name}


def test_scores_say_what_they_are_of(folder, run_dir):
    content = read(evaluate(folder, run_dir).files["scores"])
    assert content["format_version"] == 2
    assert content["data"]["complete"] is False
    assert content["data"]["rows"] == 20
    assert content["data"]["complete_rows"] == 26_280
    assert content["backbone"]["d_model"] == 16
    assert len(content["backbone"]["weights_sha256"]) == 64
    assert content["tuner"] == "dept"
    names = ("vqa_accuracy", "vqa_accuracy_legacy_vlt5")
    assert content["scales"] == {name: {"factor": 1.0, "text": "of 100"} for name in names}
    assert content["settings_sha256"] == settings_sha256(load_config(run_dir / "config.yaml"))


def test_the_hash_of_the_settings_is_that_of_what_changes_numbers(folder, run_dir):
    def changed(**overrides):
        return settings_sha256(load_config(run_dir / "config.yaml", overrides))

    own = changed()
    same = {"seed": 3, "output_dir": "x", "data.dir": "x", "data.num_workers": 2, "data.eval_batch_size": 3}
    assert changed(**same) == own
    assert len({own, changed(**{"tuner.lr": 0.2}), changed(**{"decode.num_beams": 2})}) == 3


def test_complete_data_are_those_whose_counts_prepare_found_equal(folder, run_dir, tmp_path):
    data = shutil.copytree(folder / "data", tmp_path / "data")
    (data / "vqa" / "stats.json").write_text(json.dumps({"is_subset": False, "expected": {"test": {}}}))
    assert read(evaluate(folder, run_dir, data=data).files["scores"])["data"]["complete"] is True
    (data / "vqa" / "stats.json").write_text(json.dumps({"is_subset": True, "expected": {"test": {}}}))
    assert read(evaluate(folder, run_dir, data=data).files["scores"])["data"]["complete"] is False


def test_with_an_output_everything_goes_beside_it(folder, run_dir, tmp_path):
    evaluate(folder, run_dir)
    before = contents(run_dir)
    for name in ("beams.json", "results-beams.json", "beams.txt"):
        result = evaluate(folder, run_dir, {"decode.num_beams": 2}, output=tmp_path / "out" / name)
        assert result.files["scores"] == tmp_path / "out" / name
        assert belong_together(result.files)
    assert contents(run_dir) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "answers-beams.jsonl", "beams-answers.jsonl", "beams-predictions.json", "beams.json", "beams.txt",
        "beams.txt-answers.jsonl", "beams.txt-predictions.json", "predictions-beams.json", "results-beams.json",
    ]  # fmt: skip


def test_other_settings_replace_nothing(folder, run_dir, caplog):
    own = evaluate(folder, run_dir)
    before = contents(run_dir)
    other = evaluate(folder, run_dir, {"decode.num_beams": 2})
    assert "which stays as it is; see results-test-" in caplog.text
    assert {name: content for name, content in contents(run_dir).items() if name in before} == before
    assert own.files["scores"].name == "results-test.json"
    assert other.files["scores"].name.startswith("results-test-")
    assert belong_together(own.files)
    assert belong_together(other.files)
    assert evaluate(folder, run_dir, {"decode.num_beams": 2}).files == other.files
    assert evaluate(folder, run_dir, {"data.eval_batch_size": 7}).files == own.files


def test_the_runs_own_take_their_place_and_what_lay_there_is_moved(folder, run_dir, caplog):
    first = evaluate(folder, run_dir, {"decode.num_beams": 2})
    before = contents(run_dir)
    assert first.files["scores"].name == "results-test.json"
    own = evaluate(folder, run_dir)
    assert own.files == first.files
    assert "it is moved to results-test-" in caplog.text
    (moved,) = run_dir.glob("results-test-*.json")
    key = moved.stem.removeprefix("results-test-")
    for name, content in before.items():
        assert (run_dir / name.replace("-test", f"-test-{key}")).read_bytes() == content
    assert belong_together(own.files)
    assert read(moved)["config"]["decode"]["num_beams"] == 2
    assert read(own.files["scores"])["config"]["decode"]["num_beams"] == 1


def other_rows(folder, data):
    """Copies the data, with other rows to test on."""
    shutil.copytree(folder / "data", data)
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    write_split(data / "vqa", SplitInfo("vqa", "test", str(data)), schema, tiny_vqa_rows(20, 9))
    return data


def test_other_data_replace_nothing(folder, run_dir, tmp_path, caplog):
    own = evaluate(folder, run_dir)
    same = shutil.copytree(folder / "data", tmp_path / "same")
    assert evaluate(folder, run_dir, {"data.dir": str(same)}, same).files == own.files  # the same rows elsewhere
    before = contents(run_dir)
    data = other_rows(folder, tmp_path / "data")
    other = evaluate(folder, run_dir, {"data.dir": str(data)}, data)
    assert "other settings or data than those of" in caplog.text
    assert other.files["scores"].name.startswith("results-test-")
    assert {name: content for name, content in contents(run_dir).items() if name in before} == before


def test_results_of_format_1_are_replaced_by_those_of_the_same_settings_alone(folder, run_dir):
    own = evaluate(folder, run_dir)
    content = {
        key: value for key, value in read(own.files["scores"]).items()
        if key not in ("format_version", "settings_sha256", "data")
    }  # fmt: skip
    own.files["scores"].write_text(json.dumps(content))
    assert evaluate(folder, run_dir, {"decode.num_beams": 2}).files != own.files
    assert evaluate(folder, run_dir).files == own.files
    assert read(own.files["scores"])["format_version"] == 2


def test_answers_hold_question_image_references_and_score(folder, run_dir):
    result = evaluate(folder, run_dir)
    answers = [json.loads(line) for line in result.files["answers"].read_text().splitlines()]
    predictions = read(result.files["predictions"])
    assert [{key: answer[key] for key in ("question_id", "answer")} for answer in answers] == predictions
    for answer, row in zip(answers, tiny_vqa_rows(20, 3), strict=True):
        assert answer["question"] == row["question"]
        assert answer["image"] == row["image"]
        assert answer["references"] == row["references"]
    mean = sum(answer["scores"]["vqa_accuracy"] for answer in answers) / len(answers)
    assert mean == pytest.approx(result.metrics["vqa_accuracy"])


def test_a_scored_file_has_its_answers_beside_the_scores(tmp_path, caplog):
    raw = write_raw(tmp_path / "raw")
    predictions = tmp_path / "p.json"
    predictions.write_text(json.dumps([{"question_id": q, "answer": "yes"} for q in (1000, 1001, 5000, 5001)]))
    references = {
        "questions": raw / "v2_OpenEnded_mscoco_train2014_questions.json",
        "annotations": raw / "v2_mscoco_train2014_annotations.json",
    }
    result = evaluate_file(get_task("vqa"), predictions, references, output=tmp_path / "out" / "scores.json")
    answers = [json.loads(line) for line in result.files["answers"].read_text().splitlines()]
    assert result.files["answers"].name == "scores-answers.jsonl"
    people = read(references["annotations"])["annotations"]
    assert [answer["question_id"] for answer in answers] == [record["question_id"] for record in people]
    assert answers[0]["references"] == [answer["answer"] for answer in people[0]["answers"]]
    assert set(answers[0]) == {"question_id", "answer", "references", "scores"}
    assert not (tmp_path / "out" / "scores-predictions.json").exists()
    assert "all 4 predictions are 'yes'; a correlation is undefined then and counts as 0" in caplog.text
    with pytest.raises(ConfigError, match=r"--output: .*p\.json is the file of --predictions"):
        evaluate_file(get_task("vqa"), predictions, references, output=predictions)
