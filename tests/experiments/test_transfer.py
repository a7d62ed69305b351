import json
import shutil
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest

from dept_vl.cli import main
from dept_vl.data.manifest import SplitInfo, manifest_schema, task_folder, write_split
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.experiments.plan import plan_transfer
from dept_vl.experiments.sources import fit_sources
from dept_vl.experiments.transfer import transfer
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.reports.scored_runs import read_scored_runs
from dept_vl.reports.text import describe_transfer
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.tasks.examples import example_rows
from dept_vl.training.trainer import train
from tests.experiments.conftest import written_at

WORDS = ("red", "blue", "big", "small", "cube", "ball", "left", "green")


@pytest.fixture(scope="module")
def text_data(tmp_path_factory):
    """Three prepared tasks of two classes: is the text about something red?"""
    data_dir = tmp_path_factory.mktemp("text")
    tasks = {"cola": ("sentence",), "sst2": ("sentence",), "rte": ("sentence1", "sentence2")}
    for number, (task, columns) in enumerate(tasks.items()):
        folder = task_folder(data_dir, get_task(task).under("fixed"))
        folder.mkdir()
        for place, (split, size) in enumerate({"train": 40, "val": 12, "test": 12}.items()):
            rng = np.random.default_rng([number, place])
            rows = []
            for row in range(size):
                texts = {column: " ".join(rng.choice(WORDS, size=4)) for column in columns}
                label = str(int("red" in texts[columns[0]].split()))
                golds = {"targets": [label], "target_weights": [1.0], "references": [label]}
                rows.append({"example_id": row, **texts, **golds})
            schema = manifest_schema(images=False, text_columns=columns)
            write_split(folder, SplitInfo(task, split, protocol="fixed"), schema, rows)
    return data_dir


@pytest.fixture
def settings(base, text_data, tmp_path):
    """Dotted settings of short runs on the prepared text tasks."""
    kept = {key: value for key, value in base.items() if key not in ("task", "data.dir")}
    return {**kept, "data.dir": str(text_data), "tuner.num_virtual_tokens": 4, "output_dir": str(tmp_path / "transfer")}


def test_the_best_source_on_validation_is_tested_beside_the_control(settings, text_data, tmp_path):
    target, sources = plan_transfer("cola", ["sst2", "rte"], None, {**settings, "data.few_shot": 8})
    assert [config.data.few_shot for config in sources.values()] == [None, None]
    result = transfer(target, sources, text_data, seeds=[0, 1])
    written = json.loads((tmp_path / "transfer" / "transfer.json").read_text())
    assert set(written["starts"]) == {"sst2", "rte", "scratch"}
    means = {name: written["starts"][name]["val"]["mean"] for name in ("sst2", "rte")}
    assert means[written["best_source"]] == max(means.values())
    tested = {name for name, start in written["starts"].items() if start["test"]}
    assert tested == {written["best_source"], "scratch"}
    run = json.loads((tmp_path / "transfer" / "from-sst2" / "seed-1" / "run.json").read_text())
    assert run["init"]["from"] == str(tmp_path / "transfer" / "source-sst2")
    assert "chosen on val" in describe_transfer(result)
    scored = read_scored_runs(tmp_path / "transfer")
    assert [(run.config.task, run.config.data.few_shot, run.decode, run.rows) for run in scored] == [
        ("cola", 8, "score", 12)
    ] * 2
    source = str(tmp_path / "transfer" / f"source-{written['best_source']}")
    assert {run.config.init.source for run in scored} == {source}


def test_the_source_of_the_lowest_loss_is_the_best_where_runs_are_picked_by_it(settings, text_data, tmp_path):
    target, sources = plan_transfer("cola", ["sst2", "rte"], None, {**settings, "loop.best_metric": "loss"})
    result = transfer(target, sources, text_data)
    means = {start.source: start.val.mean for start in result.sources}
    assert result.best.source == min(means, key=means.__getitem__)
    assert len(set(means.values())) == 2
    assert "val loss" in describe_transfer(result)


def test_a_source_run_is_reused_and_finished_runs_are_kept(settings, text_data, tmp_path):
    source = load_config(None, {**settings, "task": "sst2", "output_dir": str(tmp_path / "mine")})
    train(source, text_data)
    target, sources = plan_transfer("cola", ["sst2"], None, settings, source_runs=[f"sst2={tmp_path / 'mine'}"])
    before = written_at(tmp_path)
    first = transfer(target, sources, text_data)
    assert not (tmp_path / "transfer" / "source-sst2").exists()
    trained = written_at(tmp_path)
    assert before.items() < trained.items()
    again = transfer(target, sources, text_data, resume=True)
    assert again.best.test == first.best.test
    assert written_at(tmp_path) == trained


def test_prompt_tuning_makes_it_spot(settings, text_data):
    own = {key: value for key, value in settings.items() if not key.startswith("tuner.")}
    spot = {**own, "tuner.name": "prompt-tuning", "tuner.num_virtual_tokens": 6}
    target, sources = plan_transfer("cola", ["sst2"], None, spot)
    assert transfer(target, sources, text_data).best.source == "sst2"


@pytest.mark.parametrize(
    ("target", "sources", "runs", "message"),
    [
        ("cola", ["sst"], [], "unknown task 'sst'; did you mean .*'sst2'"),
        ("cola", ["sst2", "sst2"], [], "a source is given twice"),
        ("cola", ["sst2"], ["qqp=run"], "'qqp' is not among --sources sst2"),
        ("cola", ["sst2"], ["run"], "expected TASK=RUN, got 'run'"),
    ],
)
def test_names_that_do_not_fit_are_refused(target, sources, runs, message):
    with pytest.raises(ConfigError, match=message):
        plan_transfer(target, sources, None, {}, source_runs=runs)


def test_the_demos_settings_do_for_tasks_that_files_declare(tmp_path):
    for name in ("shop", "street"):
        text = f"name: {name}\nkind: question\nimage: photo\ntarget: answer\ntemplate: 'vqa: {{question}}'\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    files = [str(tmp_path / f"{name}.yaml") for name in ("shop", "street")]
    target, sources = plan_transfer(files[0], files[1:], Path("demo"), {"data.dir": str(tmp_path)})
    assert (target.task, target.model.backbone, target.data.dir) == ("shop", "demo", str(tmp_path))
    assert sources["street"].declaration.name == "street"
    assert sources["street"].model.backbone == "demo"


def test_superglue_tasks_have_short_names():
    target, sources = plan_transfer("cb", ["mnli", "record"], None, {}, source_runs=["record=run"])
    assert (target.task, str(target.run_dir)) == ("superglue-cb", "runs/superglue-cb-transfer")
    assert list(sources) == ["mnli", "superglue-record"]
    assert str(sources["superglue-record"]) == "run"


def test_a_source_that_cannot_be_one_leaves_no_folder(settings, text_data, tmp_path):
    target, sources = plan_transfer("cola", ["cola"], None, settings)
    with pytest.raises(ConfigError, match="'cola' is the target itself"):
        transfer(target, sources, text_data)
    target, sources = plan_transfer("cola", ["sst2"], None, settings, source_runs=[f"sst2={tmp_path / 'absent'}"])
    with pytest.raises(CheckpointError, match="no adapter there"):
        transfer(target, sources, text_data)
    assert not target.run_dir.exists()


README = Path(__file__).parents[2] / "README.md"
TINY = ("--loop.max_steps", "2", "--loop.eval_every_steps", "2")


def prepare_made_up(data_dir: Path, name: str, **sizes: int) -> None:
    """Writes the prepared splits of a text task, of its made-up rows."""
    task = get_task(name).under("fixed")
    lists = [column for column in task.input_columns if task.columns[column] == "texts"]
    texts = [column for column in task.input_columns if column not in lists]
    folder = task_folder(data_dir, task)
    folder.mkdir()
    for split, size in sizes.items():
        rows = []
        for number, raw in enumerate(islice(cycle(example_rows(task.name)), size)):
            (gold, *_) = task.variant.golds(raw)
            inputs = {column: raw[column] for column in task.input_columns}
            answers = {
                "targets": gold.targets,
                "target_weights": [1.0] * len(gold.targets),
                "references": gold.references,
            }
            rows.append({"example_id": number, **inputs, **answers})
        schema = manifest_schema(images=False, text_columns=texts, list_columns=lists)
        write_split(folder, SplitInfo(task.name, split, protocol="fixed"), schema, rows)


@pytest.fixture(scope="module")
def readme_data(tmp_path_factory):
    """The tasks of the README's transfer: squad and record read 512 tokens, the others 256."""
    data_dir = tmp_path_factory.mktemp("readme")
    for name in ("mnli", "qqp", "sst2", "squad", "superglue-record"):
        prepare_made_up(data_dir, name, train=18, val=2)
    prepare_made_up(data_dir, "superglue-cb", train=24, val=3, test=3)
    return data_dir


@pytest.fixture
def readme_words(t5_folder, readme_data, tmp_path, monkeypatch):
    """The README's own words, with a tiny backbone and two steps added and its DATA filled in."""
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in README.read_text().splitlines() if line.startswith("dept-vl transfer ")]
    words = [str(readme_data) if word == "DATA" else word for word in line.split()[1:]]
    return [*words, *TINY, "--model.backbone", str(t5_folder)]


def test_the_readmes_command_runs_to_its_end_and_resumes_to_the_byte(readme_words, capsys):
    assert main(readme_words) == 0
    folder = Path("runs/superglue-cb-transfer")
    facts = {
        name: read_adapter_config(folder / f"source-{name}").facts for name in ("mnli", "squad", "superglue-record")
    }
    own = read_adapter_config(folder / "from-squad" / "seed-0").facts
    assert {(fact["m"], fact["r"]) for fact in (*facts.values(), own)} == {(32, 4)}
    assert [facts[name]["s"] for name in facts] == [256, 512, 512]
    assert json.loads((folder / "transfer.json").read_text())["starts"]["scratch"]["test"]
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
    shutil.rmtree(folder / "from-squad")
    shutil.rmtree(folder / "source-superglue-record")
    assert main([*readme_words, "--resume"]) == 0
    again = {path: path.read_bytes() for path in files if not _says_when(path)}
    assert again == {path: content for path, content in files.items() if not _says_when(path)}


def _says_when(path: Path) -> bool:
    """Returns whether a file holds times or the command."""
    return path.name in ("metrics.jsonl", "run.json", "training.json", "progress.json", "transfer.json") or (
        path.name.startswith(("results-", "events."))
    )


def test_a_later_source_without_data_is_noticed_before_anything_is_trained(readme_words, readme_data, tmp_path, capsys):
    shutil.copytree(
        readme_data, tmp_path / "less", ignore=lambda _, names: [n for n in names if n.startswith("superglue-record")]
    )
    words = [str(tmp_path / "less") if word == str(readme_data) else word for word in readme_words]
    assert main(words) == 2
    assert "superglue-record.fixed/train.parquet: no such prepared split" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_target_without_its_test_split_is_noticed_too(settings, text_data, tmp_path):
    shutil.copytree(text_data, tmp_path / "data")
    (tmp_path / "data" / "cola.fixed" / "test.parquet").unlink()
    target, sources = plan_transfer("cola", ["sst2"], None, {**settings, "data.dir": str(tmp_path / "data")})
    with pytest.raises(DataError, match=r"cola\.fixed/test\.parquet: no such prepared split"):
        transfer(target, sources, tmp_path / "data")
    assert not target.run_dir.exists()


def test_what_the_target_refuses_is_refused_before_a_source_is_trained(settings, text_data):
    target, sources = plan_transfer("cola", ["sst2"], None, {**settings, "data.few_shot": 100})
    with pytest.raises(ConfigError, match="100 over 2 classes takes 50 rows"):
        transfer(target, sources, text_data)
    assert not target.run_dir.exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("tuner: {num_virtual_tokens: 2}", r"num_virtual_tokens=2, this run has 4"),
        ("tuner: {row_alignment: last-token}", "row_alignment=last-token, this run has first-token"),
        ("tuner: {name: prompt-tuning}", "trained with 'prompt-tuning', this run has 'dept'"),
        ("tuner: {budget_tokens: 30, allow_nearest: true}", "rank="),
    ],
)
def test_a_source_told_otherwise_is_compared_before_anything_is_trained(settings, text_data, tmp_path, told, message):
    (tmp_path / "source.yaml").write_text(told)
    for command in ("tuner.num_virtual_tokens", "tuner.budget_tokens", "tuner.allow_nearest"):
        settings = {key: value for key, value in settings.items() if key != command}
    (tmp_path / "target.yaml").write_text("tuner: {num_virtual_tokens: 4, budget_tokens: 20, allow_nearest: true}")
    target, sources = plan_transfer(
        "cola", ["rte", "sst2"], tmp_path / "target.yaml", settings, source_config=tmp_path / "source.yaml"
    )
    with pytest.raises(ConfigError, match=f"--sources rte: the target cannot start from it: .*{message}") as caught:
        transfer(target, sources, text_data)
    assert "sizes that a source's settings leave out are the target's" in str(caught.value)
    assert not target.run_dir.exists()


def test_a_finished_run_of_other_sizes_is_refused_before_anything_is_trained(settings, text_data, tmp_path):
    source = load_config(
        None, {**settings, "task": "sst2", "output_dir": str(tmp_path / "mine"), "tuner.num_virtual_tokens": 6}
    )
    train(source, text_data)
    target, sources = plan_transfer("cola", ["rte", "sst2"], None, settings, source_runs=[f"sst2={tmp_path / 'mine'}"])
    message = r"--source-runs sst2=.*mine: the target cannot start from it: .*num_virtual_tokens=6, this run has 4"
    with pytest.raises(ConfigError, match=message):
        transfer(target, sources, text_data)
    assert not target.run_dir.exists()


def test_a_prompt_alone_needs_equal_lengths_alone(settings):
    target, sources = plan_transfer("cola", ["sst2"], None, {**settings, "init.parts": "prompt"})
    source = replace(sources["sst2"], tuner=replace(sources["sst2"].tuner, rank=2))
    assert fit_sources(target, {"sst2": source}) == {"sst2": source}
    shorter = replace(source, tuner=replace(source.tuner, num_virtual_tokens=3))
    with pytest.raises(ConfigError, match=r"soft prompt has num_virtual_tokens=3, this run's has 4"):
        fit_sources(target, {"sst2": shorter})


def test_sources_of_another_width_are_refused(settings, save_tiny_t5, tmp_path):
    wider = save_tiny_t5(tmp_path / "wide", d_model=24)
    target, sources = plan_transfer("cola", ["sst2"], None, settings)
    source = replace(sources["sst2"], model=replace(target.model, backbone=str(wider)))
    with pytest.raises(ConfigError, match=r"d_model=24, the target's .* has 16; give both one model\.backbone"):
        fit_sources(target, {"sst2": source})


def test_sources_with_data_elsewhere_are_refused(settings, text_data, tmp_path):
    (tmp_path / "source.yaml").write_text("data: {dir: elsewhere}")
    (tmp_path / "target.yaml").write_text(f"data: {{dir: '{text_data}'}}")
    given = {key: value for key, value in settings.items() if key != "data.dir"}
    target, sources = plan_transfer(
        "cola", ["sst2"], tmp_path / "target.yaml", given, source_config=tmp_path / "source.yaml"
    )
    with pytest.raises(ConfigError, match=r"--sources sst2: data\.dir is elsewhere, the target's"):
        transfer(target, sources, text_data)
