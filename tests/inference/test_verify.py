"""A results file says enough to be made again, and what does not come out the same is named."""

import json
import shutil

import pytest

from dept_vl.cli import main
from tests.data_prep.raw_files import edit, write_raw

TINY = (
    "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
    "--data.batch_size", "8", "--loop.max_steps", "2", "--loop.eval_every_steps", "2",
)  # fmt: skip


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def scored(tmp_path_factory, t5_folder, tiny_data):
    """A data folder, and a run in it that was trained and scored."""
    root = tmp_path_factory.mktemp("verify")
    shutil.copytree(tiny_data, root / "data")
    words = ["--data-dir", root / "data", "--output-dir", root / "run", "--model.backbone", t5_folder]
    assert run("train", "--task", "vqa", *words, *TINY) == 0
    assert run("eval", "--checkpoint", root / "run", "--decode.num_beams", "2") == 0
    return root


@pytest.fixture
def copy(scored, tmp_path):
    shutil.copytree(scored / "run", tmp_path / "run")
    return tmp_path / "run"


def test_results_of_a_run_say_everything_and_are_made_again(scored, capsys):
    path = scored / "run" / "results-test.json"
    before = {p: p.read_bytes() for p in (scored / "run").iterdir() if p.is_file()}
    content = json.loads(path.read_text())
    assert set(content["sha256"]) == {"adapter", "data", "predictions"}
    assert content["decoding"] == {"method": "generate", "num_beams": 2, "max_new_tokens": 10, "precision": "float32"}
    assert content["config"]["seed"] == 0
    assert content["evaluators"] == ["vqa-accuracy", "vqa-accuracy-legacy-vlt5"]
    assert {"commit", "versions", "python"} <= set(content["made_by"])
    assert run("eval", "--verify", path) == 0
    assert "verified: " in capsys.readouterr().out
    assert {p: p.read_bytes() for p in (scored / "run").iterdir() if p.is_file()} == before


def test_a_moved_run_and_moved_data_are_found(scored, copy, tmp_path, capsys):
    edit(copy / "results-test.json", lambda content: content.update(run="gone", config=content["config"]))
    shutil.copytree(scored / "data", tmp_path / "data")
    assert run("eval", "--verify", copy / "results-test.json", "--data-dir", tmp_path / "data") == 0


def prepared_elsewhere(scored, folder):
    """Writes the rows of the test split as somebody else would prepare them, whose images lie in another folder."""
    from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
    from tests.conftest import tiny_vqa_rows

    shutil.copytree(scored / "data", folder)
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    write_split(folder / "vqa", SplitInfo("vqa", "test", "/home/somebody/images"), schema, tiny_vqa_rows(20, 3))
    return folder


def test_it_is_made_again_after_data_and_run_have_moved(tmp_path, t5_folder, tiny_data, capsys):
    shutil.copytree(tiny_data, tmp_path / "data")
    words = ["--data-dir", tmp_path / "data", "--output-dir", tmp_path / "run", "--model.backbone", t5_folder]
    assert run("train", "--task", "vqa", *words, *TINY) == 0
    assert run("eval", "--checkpoint", tmp_path / "run") == 0
    (tmp_path / "run").rename(tmp_path / "run-moved")
    (tmp_path / "data").rename(tmp_path / "data-moved")
    words = ["--verify", tmp_path / "run-moved" / "results-test.json"]
    assert run("eval", *words) == 2
    assert "nothing is there; if it moved, give --data-dir PATH" in capsys.readouterr().err
    assert run("eval", *words, "--data-dir", tmp_path / "data-moved") == 0
    assert "verified: " in capsys.readouterr().out


def test_it_is_made_again_by_who_prepared_the_same_rows_elsewhere(scored, copy, tmp_path, capsys):
    data = prepared_elsewhere(scored, tmp_path / "data")
    assert (data / "vqa" / "test.parquet").read_bytes() != (scored / "data" / "vqa" / "test.parquet").read_bytes()
    assert run("eval", "--verify", copy / "results-test.json", "--data-dir", data) == 0
    assert "sha256 of data" not in capsys.readouterr().out


def as_format_1(content):
    """What an earlier version wrote: nothing of what the scores are of."""
    for key in ("format_version", "data", "backbone", "tuner", "settings_sha256", "scales"):
        del content[key]


def test_results_of_format_1_are_made_again_and_their_hash_of_the_file_is_a_note(scored, copy, tmp_path, capsys):
    edit(copy / "results-test.json", as_format_1)
    assert run("eval", "--verify", copy / "results-test.json") == 0
    assert "sha256 of data" not in capsys.readouterr().out
    data = prepared_elsewhere(scored, tmp_path / "data")
    assert run("eval", "--verify", copy / "results-test.json", "--data-dir", data) == 0
    assert "note: sha256 of data: recorded " in capsys.readouterr().out


def test_results_of_a_later_format_are_refused(copy, capsys):
    edit(copy / "results-test.json", lambda content: content.update(format_version=3))
    assert run("eval", "--verify", copy / "results-test.json") == 2
    assert "results of format 3, this version reads 1 and 2" in capsys.readouterr().err


def test_another_run_that_lies_where_it_was_is_not_taken_for_it(scored, copy, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("adapter_model.safetensors", "config.yaml"):
        (other / name).write_text("another run")
    edit(copy / "results-test.json", lambda content: content.update(run=str(other)))
    assert run("eval", "--verify", copy / "results-test.json") == 0


def test_an_altered_score_is_named(copy, capsys):
    edit(copy / "results-test.json", lambda content: content["metrics"].update(vqa_accuracy=99.5))
    assert run("eval", "--verify", copy / "results-test.json") == 1
    assert "vqa_accuracy: recorded 99.5, now " in capsys.readouterr().err


def test_an_altered_adapter_is_named(copy, capsys):
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = copy / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({name: tensor + torch.ones_like(tensor) for name, tensor in load_file(path).items()}, path, metadata)
    edit(copy / "results-test.json", lambda content: content.update(run=str(copy)))
    assert run("eval", "--verify", copy / "results-test.json") == 1
    assert "sha256 of adapter: recorded " in capsys.readouterr().err


def test_other_data_are_named(scored, copy, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(scored / "data", data)
    from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
    from tests.conftest import tiny_vqa_rows

    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    write_split(data / "vqa", SplitInfo("vqa", "test", str(data)), schema, tiny_vqa_rows(20, 9))
    assert run("eval", "--verify", copy / "results-test.json", "--data-dir", data) == 1
    assert "sha256 of data: recorded " in capsys.readouterr().err


@pytest.fixture
def file_scores(tmp_path):
    """Scores of a predictions file, without any model."""
    raw = write_raw(tmp_path / "raw")
    predictions = tmp_path / "p.json"
    predictions.write_text(json.dumps([{"question_id": q, "answer": "yes"} for q in (1000, 1001, 5000, 5001)]))
    words = ["eval", "--task", "vqa", "--predictions", predictions, "--output", tmp_path / "scores.json"]
    words += ["--questions", raw / "v2_OpenEnded_mscoco_train2014_questions.json"]
    words += ["--annotations", raw / "v2_mscoco_train2014_annotations.json", "--metric", "vqa-accuracy-legacy-vlt5"]
    assert run(*words) == 0
    return tmp_path


def test_scores_of_a_predictions_file_are_made_again(file_scores, capsys):
    content = json.loads((file_scores / "scores.json").read_text())
    assert set(content["sha256"]) == {"predictions", "questions", "annotations"}
    assert content["evaluators"] == ["vqa-accuracy-legacy-vlt5"]
    assert run("eval", "--verify", file_scores / "scores.json") == 0


def test_scored_files_that_were_moved_are_found_beside_the_scores_or_named(file_scores, tmp_path, capsys):
    moved = file_scores / "moved"
    moved.mkdir()
    for name in ("scores.json", "p.json"):
        (file_scores / name).rename(moved / name)
    (file_scores / "raw").rename(file_scores / "gone")
    assert run("eval", "--verify", moved / "scores.json") == 2
    assert "cannot be read" in capsys.readouterr().err
    words = ["--questions", file_scores / "gone" / "v2_OpenEnded_mscoco_train2014_questions.json"]
    words += ["--annotations", file_scores / "gone" / "v2_mscoco_train2014_annotations.json"]
    assert run("eval", "--verify", moved / "scores.json", *words) == 0


def test_a_file_that_was_not_scored_is_refused(file_scores, capsys):
    assert run("eval", "--verify", file_scores / "scores.json", "--references", "x.json") == 2
    assert "--references: is none of the files that were scored" in capsys.readouterr().err


def test_they_are_made_again_from_another_folder(file_scores, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(file_scores)
    raw = "raw/v2_OpenEnded_mscoco_train2014_questions.json", "raw/v2_mscoco_train2014_annotations.json"
    words = ["--predictions", "p.json", "--questions", raw[0], "--annotations", raw[1], "--output", "again.json"]
    assert run("eval", "--task", "vqa", *words, "--metric", "vqa-accuracy-legacy-vlt5") == 0
    monkeypatch.chdir(tmp_path_factory.mktemp("other"))
    assert run("eval", "--verify", file_scores / "again.json") == 0


def test_an_altered_predictions_file_is_named(file_scores, capsys):
    edit(file_scores / "p.json", lambda records: records[0].update(answer="no"))
    assert run("eval", "--verify", file_scores / "scores.json") == 1
    message = capsys.readouterr().err
    assert "sha256 of predictions: recorded " in message
    assert "vqa_accuracy_legacy_vlt5: recorded " in message or "vqa_accuracy" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot read the results"),
        ("[]", "no task, metrics"),
        ('{"task": "vqa", "metrics": {}, "evaluators": [], "made_by": {}}', "no sha256, references"),
    ],
)
def test_what_is_no_results_file_is_refused(tmp_path, capsys, content, says):
    (tmp_path / "r.json").write_text(content)
    assert run("eval", "--verify", tmp_path / "r.json") == 2
    assert says in capsys.readouterr().err


def test_settings_that_change_the_result_are_refused(scored, capsys):
    assert run("eval", "--verify", scored / "run" / "results-test.json", "--decode.num_beams", "3") == 2
    assert "decode.num_beams: has no effect with --verify" in capsys.readouterr().err
