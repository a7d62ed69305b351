"""A run of several tasks at the command line and in Python: trained, scored, verified, asked."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import dept_vl
from dept_vl.cli import main
from dept_vl.data.manifest import open_split
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.evaluators import display_scale
from dept_vl.inference.result_files import settings_sha256
from dept_vl.runs.folder import read_run_config
from dept_vl.runs.info import count_budget
from dept_vl.runs.open import open_run
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.tuners import DeptConfig

TINY = (
    "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
    "--data.batch_size", "8", "--loop.max_steps", "2", "--loop.eval_every_steps", "2",
)  # fmt: skip
SENTENCES = {"premise": "the red ball", "hypothesis": "the ball is red"}


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, t5_folder, mix_data):
    """A run of CoLA, MNLI and SQuAD that was scored on all."""
    folder = tmp_path_factory.mktemp("mix") / "run"
    words = ["--data-dir", mix_data, "--output-dir", folder, "--model.backbone", t5_folder]
    assert run("train", "--task", "cola+mnli+squad", *words, *TINY) == 0
    assert run("eval", "--checkpoint", folder) == 0
    return folder


def results(folder, name="test"):
    return json.loads((folder / f"results-{name}.json").read_text())


def test_every_task_has_files_of_its_own_and_the_mean_lies_beside_them(trained):
    found = {name: results(trained, f"test-{name}") for name in ("cola", "mnli", "squad")}
    for name, content in found.items():
        assert content["task"] == name
        assert content["protocol"] == "fixed"
        assert content["config"]["task"] == "cola+mnli+squad"
        assert {f"predictions-test-{name}.json", f"answers-test-{name}.jsonl"} <= {p.name for p in trained.iterdir()}
    assert [content["decode"] for content in found.values()] == ["score", "score", "generate"]
    whole = results(trained)
    assert whole["task"] == "cola+mnli+squad"
    assert whole["results"] == {name: f"results-test-{name}.json" for name in found}
    assert whole["primary_metrics"] == {"cola": "matthews_correlation", "mnli": "accuracy", "squad": "squad_f1"}
    shown = [
        found[name]["metrics"][metric] * display_scale(metric).factor
        for name, metric in whole["primary_metrics"].items()
    ]
    assert whole["metrics"]["mean"] == pytest.approx(sum(shown) / 3)
    for name, content in found.items():
        for metric, value in content["metrics"].items():
            assert whole["metrics"][f"{name}/{metric}"] == value
    assert whole["num_scored"] == sum(content["num_scored"] for content in found.values())


def test_scores_of_tasks_are_printed_as_alone():
    assert display_scale("cola/matthews_correlation") == display_scale("matthews_correlation")
    assert display_scale("vqa/vqa_accuracy/number") == display_scale("vqa_accuracy")
    assert display_scale("vqa/loss") == display_scale("loss")


def test_one_task_is_scored_alone(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert run("eval", "--checkpoint", tmp_path / "run", "--task", "mnli", "--metric", "accuracy") == 0
    printed = capsys.readouterr().out
    assert "mnli test (protocol fixed): 10 scored" in printed
    assert "cola" not in printed
    changed = {p.name for p in (tmp_path / "run").iterdir() if p.is_file() and p.read_bytes() != before.get(p.name)}
    assert changed == {"results-test-mnli.json"}
    assert results(tmp_path / "run", "test-mnli")["metrics"]["accuracy"] == results(trained)["metrics"]["mnli/accuracy"]


def test_an_output_is_named_once_and_each_task_lies_beside_it(trained, tmp_path):
    assert run("eval", "--checkpoint", trained, "--split", "val", "--output", tmp_path / "mine.json") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"mine.json", "mine-cola.json", "mine-mnli.json", "mine-squad.json", "mine-mnli-predictions.json"} <= names
    assert json.loads((tmp_path / "mine.json").read_text())["results"]["cola"] == "mine-cola.json"


@pytest.mark.parametrize("name", ["test", "test-mnli", "test-squad"])
def test_results_are_made_again(trained, name, capsys):
    path = trained / f"results-{name}.json"
    before = {p: p.read_bytes() for p in trained.iterdir() if p.is_file()}
    assert run("eval", "--verify", path) == 0
    assert f"verified: {path}" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in trained.iterdir() if p.is_file()} == before


@pytest.mark.parametrize(("name", "metric"), [("test", "squad/squad_f1"), ("test-mnli", "accuracy")])
def test_a_score_that_does_not_come_out_is_named(trained, tmp_path, name, metric, capsys):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / f"results-{name}.json"
    content = json.loads(path.read_text())
    content["metrics"][metric] = 0.123
    path.write_text(json.dumps(content))
    assert run("eval", "--verify", path) == 1
    assert f"{metric}: recorded 0.123, now " in capsys.readouterr().err


def test_other_settings_do_not_replace_the_results(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    before = (tmp_path / "run" / "results-test-squad.json").read_bytes()
    assert run("eval", "--checkpoint", tmp_path / "run", "--decode.num_beams", "2") == 0
    assert (tmp_path / "run" / "results-test-squad.json").read_bytes() == before
    others = [p.name for p in (tmp_path / "run").glob("results-test-squad-????????.json")]
    assert len(others) == 1
    assert len(list((tmp_path / "run").glob("results-test-????????.json"))) == 1


def test_a_mix_is_another_cell_than_its_tasks_alone(trained):
    config = read_run_config(trained)
    assert settings_sha256(config) != settings_sha256(config.for_task("mnli"))
    alone = load_config(None, {"task": "cola"})
    assert set(asdict(alone.mix).values()) == {None}  # left out of the hash, as any earlier run has it


def test_predictions_are_about_one_task(trained, capsys):
    columns = [word for name, text in SENTENCES.items() for word in ("--column", f"{name}={text}")]
    assert run("predict", "--checkpoint", trained, *columns) == 2
    assert "--task: " in (message := capsys.readouterr().err)
    assert "was trained on cola, mnli, squad; name the one to ask" in message
    assert run("predict", "--checkpoint", trained, "--task", "mnli", *columns) == 0
    printed = capsys.readouterr().out
    model = dept_vl.load(trained)
    assert f"label: {model.answer(**SENTENCES, task='mnli')}" in printed
    assert run("predict", "--checkpoint", trained, "--task", "rte", *columns) == 2
    assert "was trained on 'cola+mnli+squad', asked for 'rte'" in capsys.readouterr().err


def test_the_answers_in_python_are_those_of_the_evaluation(trained, mix_data):
    model = dept_vl.load(trained)
    assert (model.task, model.tasks) == ("cola+mnli+squad", ("cola", "mnli", "squad"))
    for name in model.tasks:
        task = get_task(name).under("fixed")
        rows = open_split(mix_data, task, "test")
        inputs = [{column: row[column] for column in task.input_columns} for row in rows]
        expected = [one["prediction"] for one in json.loads((trained / f"predictions-test-{name}.json").read_text())]
        assert model.answer_many(inputs, task=name) == expected
        assert model.for_task(name).answer_many(inputs) == expected
        assert model.answer(**inputs[0], task=name) == expected[0]
    assert model.for_task("mnli").takes == ("premise", "hypothesis")
    assert model.for_task("mnli").labels == ("0", "1", "2")
    assert set(model.score(**SENTENCES, task="mnli")) == {"0", "1", "2"}
    assert set(model.probabilities("the red ball", task="cola")) == {"0", "1"}


def test_a_question_without_its_task_is_refused(trained):
    model = dept_vl.load(trained)
    for ask in (lambda: model.answer("the red ball"), lambda: model.answer_many(["red"]), lambda: model.takes):
        with pytest.raises(ConfigError, match="was trained on cola, mnli, squad; name one: task='cola'"):
            ask()
    with pytest.raises(ConfigError, match="and not on 'rte'"):
        model.answer("red", task="rte")
    assert "task 'cola+mnli+squad'" in repr(model)


def test_a_run_of_one_task_takes_its_own_name(t5_folder, label_data, tmp_path):
    words = ["--data-dir", label_data, "--output-dir", tmp_path / "run", "--model.backbone", t5_folder]
    assert run("train", "--task", "cola", *words, *TINY) == 0
    model = dept_vl.load(tmp_path / "run")
    assert model.answer("red ball", task="cola") == model.answer("red ball")
    with pytest.raises(ConfigError, match="was trained on cola; and not on 'rte'"):
        model.answer("red ball", task="rte")


def test_a_task_that_the_adapter_was_not_trained_on_is_refused(trained):
    config = read_run_config(trained)
    other = load_config(trained / "config.yaml", {"task": "cola+mnli+stsb"})
    assert config.task_names[:2] == other.task_names[:2]
    with pytest.raises(CheckpointError, match="was trained on cola, mnli, squad together, and not on 'stsb'"):
        open_run(other.for_task("stsb"), None, (), adapter=trained)


def test_settings_are_those_of_the_runs_own_tasks(trained):
    with pytest.raises(ConfigError, match=r"'rte' is none of the run's \(cola, mnli, squad\)"):
        read_run_config(trained).for_task("rte")


def test_several_seeds_are_scored_on_every_task(t5_folder, mix_data, tmp_path, capsys):
    words = ["--data-dir", mix_data, "--output-dir", tmp_path / "seeds", "--model.backbone", t5_folder]
    assert run("train", "--task", "cola+mnli", "--seeds", "0,1", *words, *TINY) == 0
    content = json.loads((tmp_path / "seeds" / "seeds.json").read_text())
    assert content["primary_metric"] == "mean"
    assert {"mean", "cola/matthews_correlation", "mnli/accuracy"} <= content["metrics"].keys()
    assert "best mean on val" in capsys.readouterr().out


def test_the_budget_is_printed_per_task(t5_folder, capsys):
    assert run("info", "--task", "cola+mnli", "--model.backbone", t5_folder, "--tuner", "fine-tuning") == 0
    lines = capsys.readouterr().out.splitlines()
    (whole,) = [line.split()[1] for line in lines if line.split()[0] == "trainable"]
    (each,) = [line.split()[2] for line in lines if line.split()[:2] == ["per", "task"]]
    assert int(each.replace(",", "")) == int(whole.replace(",", "")) // 2


def test_fine_tuning_of_t5_base_counts_an_eighth_for_each_task_of_glue():
    """FT(m) of the paper's Table 1, 28M."""
    glue = "rte+sst2+mrpc+stsb+qqp+mnli+qnli+cola"
    budget = count_budget(load_config(None, {"task": glue, "tuner.name": "fine-tuning", "model.backbone": "t5-base"}))
    assert budget.trainable == 222_903_552
    assert budget.per_task == 27_862_944


def test_the_card_asks_about_a_task(trained):
    card = (trained / "README.md").read_text()
    assert "# dept for cola+mnli+squad on " in card
    assert "model.for_task('cola').score(sentence='TEXT')" in card
    assert "--task cola --column sentence=TEXT" in card
    assert "| Scores on val | mean " in card


def test_a_shared_run_of_several_tasks_is_asked_and_scored(hub, trained, t5_folder, mix_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("push", trained, "me/mix", "--model.backbone", "me/tiny-t5", "--licence", "mit") == 0
    model = dept_vl.load("me/mix", backbone=t5_folder)
    assert model.answer("the red ball", task="cola") == dept_vl.load(trained).answer("the red ball", task="cola")
    assert run("eval", "--checkpoint", "me/mix", "--model.backbone", t5_folder, "--data-dir", mix_data) == 0
    assert results(tmp_path / "runs" / "me--mix")["metrics"] == results(trained)["metrics"]


def test_a_run_of_one_task_starts_from_one_of_several(trained, t5_folder, mix_data, tmp_path):
    words = ["--data-dir", mix_data, "--output-dir", tmp_path / "run", "--model.backbone", t5_folder]
    assert run("train", "--task", "mnli", *words, *TINY, "--init-from", trained) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["init"]["source_task"] == "cola+mnli+squad"


def test_a_sweep_is_won_by_the_best_mean(t5_folder, mix_data, tmp_path):
    (tmp_path / "plan.yaml").write_text("sweep: {space: {mix.temperature: [1.0, 10.0]}}\n")
    words = ["--data-dir", mix_data, "--output-dir", tmp_path / "sweep", "--model.backbone", t5_folder]
    assert run("sweep", "--config", tmp_path / "plan.yaml", "--task", "cola+mnli", *words, *TINY) == 0
    summary = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    values = [
        json.loads((tmp_path / "sweep" / f"trial-000{number}" / "training.json").read_text())["best_metric"]
        for number in range(2)
    ]
    assert summary["best"]["val mean"] == max(values)
    assert (Path(summary["best"]["run"]) / "results-test-mnli.json").is_file()


def test_text_tasks_are_found_in_the_cache_where_no_data_are_named(t5_folder, mix_data, tmp_path, monkeypatch):
    shutil.copytree(mix_data, tmp_path / "cache" / "data")
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    words = ["--output-dir", tmp_path / "run", "--model.backbone", t5_folder]
    assert run("train", "--task", "cola+mnli", *words, *TINY) == 0


def test_a_method_for_several_tasks_is_refused_for_one(monkeypatch, label_data, capsys):
    monkeypatch.setattr(DeptConfig, "needs_tasks", True)
    assert run("train", "--task", "cola", "--data-dir", label_data) == 2
    assert (
        "tuner.name: 'dept' shares what several tasks have in common, and the run has one task"
        in capsys.readouterr().err
    )
