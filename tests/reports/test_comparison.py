import json
import shutil
from dataclasses import asdict, replace

import pytest

from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.evaluators.paired import mcnemar
from dept_vl.experiments.seeds import train_seeds
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.reports.comparison import compare_runs
from dept_vl.reports.studies import describe_comparison
from dept_vl.settings.load import load_config
from dept_vl.system.bounded_reading import hash_file
from dept_vl.training.trainer import train

GOLDS = ["1", "0"] * 20


def written_run(folder, task="cola", tuner="dept", predictions=GOLDS, seed=0, rows_sha256="a" * 64, **overrides):
    """Writes the scores and answers of a run, as `dept-vl eval` does."""
    folder.mkdir(parents=True)
    config = load_config(None, {"task": task, "tuner.name": tuner, "seed": seed, **overrides})
    right = [float(a == b) for a, b in zip(predictions, GOLDS, strict=True)]
    predictions_file = folder / "predictions-test.json"
    predictions_file.write_text(json.dumps([{"example_id": i, "prediction": p} for i, p in enumerate(predictions)]))
    lines = [
        {"example_id": i, "sentence": "s", "prediction": p, "references": [gold], "scores": {"correct": one}}
        for i, (p, gold, one) in enumerate(zip(predictions, GOLDS, right, strict=True))
    ]
    (folder / "answers-test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    accuracy = sum(right) / len(right)
    content = {
        "metrics": {"matthews_correlation": accuracy, "accuracy": accuracy}, "config": asdict(config),
        "decode": "score", "num_scored": len(predictions), "data": {"rows_sha256": rows_sha256},
        "sha256": {"predictions": hash_file(predictions_file)}, "answer_seconds": 2.0,
    }  # fmt: skip
    (folder / "results-test.json").write_text(json.dumps(content))
    return folder


def wrong_at(*rows):
    return [("0" if gold == "1" else "1") if row in rows else gold for row, gold in enumerate(GOLDS)]


def row(result, label):
    (found,) = [one for one in result.methods if one.label == label]
    return found


def test_methods_are_tested_on_the_rows_that_both_answered(tmp_path):
    ours = written_run(tmp_path / "dept", predictions=wrong_at(0))
    theirs = written_run(tmp_path / "lora", tuner="lora", predictions=wrong_at(*range(1, 11)))
    result = compare_runs([ours, theirs])
    beside = row(result, "lora").cells["cola"].beside
    assert (beside.test, beside.better, beside.worse) == ("mcnemar", 1, 10)
    assert beside.p == mcnemar(1, 10)
    assert row(result, "dept").cells["cola"].beside is None
    assert (result.against, result.metrics, result.rows) == ("dept", {"cola": "matthews_correlation"}, {"cola": 40})
    assert row(result, "dept").answered_per_s == 20.0
    turned = row(compare_runs([ours, theirs], against="lora"), "dept").cells["cola"].beside
    assert (turned.better, turned.worse, turned.p) == (10, 1, beside.p)


def test_seeds_are_averaged_and_tested_together(tmp_path):
    runs = [written_run(tmp_path / f"dept-{n}", seed=n, predictions=wrong_at(n)) for n in range(3)]
    runs += [
        written_run(tmp_path / f"lora-{n}", tuner="lora", seed=n, predictions=wrong_at(*range(9))) for n in range(3)
    ]
    result = compare_runs(runs)
    cell = row(result, "lora").cells["cola"]
    assert (len(cell.runs), cell.scores.mean, cell.scores.std) == (3, pytest.approx(31 / 40), 0.0)
    assert cell.beside.test == "bootstrap"
    assert cell.beside.difference == pytest.approx(31 / 40 - 39 / 40)
    assert (cell.beside.better, cell.beside.worse) == (0, 9)
    text = describe_comparison(result)
    assert "97.5 +- 0.0 (3)" in text
    assert "77.5 +- 0.0 (3)" in text
    assert "how many in brackets" in text


def test_methods_of_one_name_are_told_apart_by_their_settings(tmp_path):
    runs = [
        written_run(tmp_path / str(lr), predictions=wrong_at(n), **{"tuner.lr": lr}) for n, lr in enumerate((0.3, 0.5))
    ]
    assert [one.label for one in compare_runs(runs).methods] == ["dept (tuner.lr=0.3)", "dept (tuner.lr=0.5)"]
    spot = written_run(tmp_path / "spot", tuner="prompt-tuning", **{"init.from": "runs/mnli"})
    assert [one.label for one in compare_runs([runs[0], spot]).methods] == ["dept", "spot"]


def test_tasks_are_columns_and_a_missing_cell_stays_empty(tmp_path):
    runs = [
        written_run(tmp_path / "a", "cola"),
        written_run(tmp_path / "b", "cola", "lora", wrong_at(1)),
        written_run(tmp_path / "c", "rte", "lora", wrong_at(1, 2)),
    ]
    text = describe_comparison(compare_runs(runs))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:3] == ["method", "cola", "rte"]
    assert lines[1] == ["dept", "100.0", "20"]
    assert lines[2] == ["lora", "97.5", "95.0", "20"]
    assert "lora on rte is not tested: dept has no run there, or answers are gone" in text


def test_a_score_of_its_own_can_be_asked_for(tmp_path):
    runs = [written_run(tmp_path / "a"), written_run(tmp_path / "b", tuner="lora")]
    assert compare_runs(runs, metric="accuracy").metrics == {"cola": "accuracy"}
    with pytest.raises(CheckpointError, match=r"a/results-test.json: has no 'f1' \(it has: matthews_corr"):
        compare_runs(runs, metric="f1")
    with pytest.raises(ConfigError, match="unknown evaluator 'acuracy'; did you mean 'accuracy'"):
        compare_runs(runs, metric="acuracy")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rows_sha256": "b" * 64}, "another sha256 of the test rows"),
        ({"data.protocol": "paper"}, r"another protocol \(fixed, paper\)"),
    ],
)
def test_runs_on_other_rows_are_refused(tmp_path, other, message):
    runs = [written_run(tmp_path / "a"), written_run(tmp_path / "b", tuner="lora", **other)]
    with pytest.raises(ConfigError, match=f"runs of 'cola' cannot be compared: .*a and .*b have {message}"):
        compare_runs(runs)


def test_a_run_given_twice_is_refused(tmp_path):
    run = written_run(tmp_path / "a")
    with pytest.raises(ConfigError, match="a: given twice; a run counts once"):
        compare_runs([run, run])


def test_answers_that_are_not_those_of_the_scores_are_refused(tmp_path):
    runs = [written_run(tmp_path / "a"), written_run(tmp_path / "b", tuner="lora")]
    answers = runs[1] / "answers-test.jsonl"
    kept = answers.read_text()
    answers.write_text(kept.replace('"prediction": "0"', '"prediction": "1"', 1))
    with pytest.raises(CheckpointError, match=r"answers-test.jsonl: not the answers of predictions-test.json"):
        compare_runs(runs)
    for damaged in ("{", kept.replace('"correct": 1.0', '"correct": NaN'), kept.replace("references", "referenced")):
        answers.write_text(damaged)
        with pytest.raises(CheckpointError, match=r"results-test.json: its answers cannot be read"):
            compare_runs(runs)
    answers.unlink()
    with pytest.raises(CheckpointError, match=r"its answers cannot be read \(.*No such file"):
        compare_runs(runs)
    (runs[1] / "predictions-test.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"predictions-test.json: not the answers that results-test.json is of"):
        compare_runs(runs)


def test_scores_whose_answers_are_gone_are_shown_and_not_tested(tmp_path):
    run = written_run(tmp_path / "a")
    (tmp_path / "seeds").mkdir()
    config = load_config(None, {"task": "cola", "tuner.name": "lora"})
    content = {
        "config": asdict(config), "metrics": {"matthews_correlation": {"values": [0.5, 0.6]}},
        "runs": [{"seed": 0}, {"seed": 1}],
    }  # fmt: skip
    (tmp_path / "seeds" / "seeds.json").write_text(json.dumps(content))
    text = describe_comparison(compare_runs([run, tmp_path / "seeds"]))
    assert "55.0 +- 7.1 (2)" in text
    assert "lora on cola is not tested: dept has no run there, or answers are gone" in text


def test_trained_runs_are_compared_from_their_folders(t5_folder, label_data, tmp_path, capsys):
    shared = {
        "task": "cola", "model.backbone": str(t5_folder), "data.dir": str(label_data), "data.max_source_length": 16,
        "data.batch_size": 8, "loop.max_steps": 2, "loop.eval_every_steps": 2,
    }  # fmt: skip
    small = {"tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4}
    dept = load_config(None, {**shared, **small, "output_dir": str(tmp_path / "dept")})
    train_seeds(dept, label_data, [0, 1])
    lora = load_config(None, {**shared, "tuner.name": "lora", "tuner.rank": 2, "output_dir": str(tmp_path / "lora")})
    train(lora, label_data)
    budget = evaluate_run(lora, label_data, lora.run_dir).budget
    words = ["compare", str(tmp_path / "dept"), str(tmp_path / "lora"), "--output", str(tmp_path / "out.json")]
    assert main(words) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == ["method", "cola", "parameters", "trained/s", "answered/s"]
    assert lines[2][0] == "lora"
    assert lines[2][2] == f"{budget.trainable:,}"
    assert "against dept:" in said
    assert "speeds are each run's own, on the machine that it was trained or scored on" in said
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["methods"]["lora"]["parameters"] == budget.trainable
    assert written["methods"]["lora"]["tasks"]["cola"]["beside"]["test"] in ("mcnemar", "bootstrap")
    assert len(written["methods"]["dept"]["tasks"]["cola"]["runs"]) == 2
    other = replace(lora, output_dir=str(tmp_path / "other"))
    shutil.copytree(lora.run_dir, other.run_dir)
    (other.run_dir / "results-test.json").unlink()
    assert main(["compare", str(tmp_path / "lora"), str(other.run_dir)]) == 2
    assert "holds no test scores; make them with `dept-vl eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "lroa"], "unknown method 'lroa'; did you mean 'lora'"),
        (["--metric", "acuracy"], "unknown evaluator 'acuracy'"),
        (["--output", "absent/x.json"], "--output absent/x.json: there is no folder absent/"),
        (["--lr", "3"], "unrecognized arguments: --lr 3"),
        (["--tuner.lr", "3"], "--tuner.lr: `dept-vl compare` takes no settings"),
        (["absent"], "absent: no such folder"),
    ],
)
def test_what_cannot_be_compared_is_one_message_and_exit_code_2(tmp_path, capsys, words, message):
    runs = [str(written_run(tmp_path / "a")), str(written_run(tmp_path / "b", tuner="lora"))]
    try:
        code = main(["compare", *runs, *words])
    except SystemExit as refused:  # argparse's own
        code = refused.code
    assert code == 2
    assert message in capsys.readouterr().err
