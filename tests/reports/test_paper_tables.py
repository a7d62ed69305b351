import csv
import io
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pytest

from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.reports.paper_numbers import PAPER_TABLES
from dept_vl.reports.paper_settings import PaperPlace, paper_row, short_name
from dept_vl.reports.paper_tables import compare
from dept_vl.reports.scored_runs import ScoredRun
from dept_vl.settings.demo import demo_settings
from dept_vl.settings.load import config_from_tree, dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.tuners import Method
from tests.reports.test_paper_numbers import PAPER


def write_results(folder, config, metrics, *, rows=None, method="generate", **others):
    """Writes the file of scores of a run with these settings, on the complete test split unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    if rows is None:
        rows = get_task(config.task).under(config.data.protocol).split_sizes["test"].rows
    content = {"metrics": metrics, "config": asdict(config), "decode": method, "num_scored": rows, **others}
    (folder / "results-test.json").write_text(json.dumps(content))
    return folder


def paper_run(folder, task, metrics, overrides=None, **others):
    """Writes the scores of a run with the paper's own settings for a task of Table 1."""
    config = load_config(PAPER / "table1" / "dept" / f"{task}.yaml", overrides or {})
    return write_results(folder, config, metrics, **others)


def lines_of(text, task):
    """Returns the lines of a task as lists of words."""
    return [line.split() for line in text.splitlines() if line.split()[:1] == [task]]


def notes_of(text):
    return [line.strip() for line in text.splitlines() if line.strip().startswith("[")]


def scored(config, **fields):
    return ScoredRun(Path("results-test.json"), config, "generate", {}, **fields)


def blocks_of(text):
    """Returns the blocks of a printed table, each as lists of words, a line each."""
    return [[line.split() for line in block.splitlines()] for block in text.split("\n\n")]


def test_ours_stands_beside_the_papers_and_missing_cells_are_empty(tmp_path):
    run = paper_run(tmp_path / "cola", "cola", {"matthews_correlation": 0.612, "accuracy": 0.8})
    text = compare("table1", [run])
    assert lines_of(text, "cola") == [
        ["cola", "61.2", "63.8", "matthews_correlation", "1", "dept", "paper", "generate"]
    ]
    assert lines_of(text, "mnli") == []
    assert notes_of(text) == []
    glue, superglue = blocks_of(text)[:2]
    row = next(number for number, words in enumerate(glue) if words[0] == "dept")
    assert glue[row][1:] == ["76.8k", "85.0", "90.4", "93.2", "94.2", "90.8", "90.7", "79.1", "63.8", "85.9"]
    assert glue[row + 1] == ["ours", "61.2"]
    assert text.splitlines()[row + 1].index("61.2") == text.splitlines()[row].index("63.8")
    assert "ours" not in [words[0] for words in superglue]


def test_every_row_of_the_paper_is_printed_in_its_group(tmp_path):
    glue, superglue = blocks_of(compare("table1", []))[:2]
    rows = PAPER_TABLES["table1"].rows
    for block, mean in ((glue, "glue"), (superglue, "superglue")):
        head = next(number for number, words in enumerate(block) if words[:1] == ["params"])
        group, found = "", []
        for words in block[head + 1 :]:
            group, found = (words[0], found) if len(words) == 1 else (group, [*found, (group, *words)])
        assert len(found) == 17
        for words, row in zip(found, rows, strict=True):
            tasks = [f"{row.values[task]}" for task in PAPER_TABLES["table1"].means[mean] if task in row.values]
            printed = [f"{row.means[mean]}"] if mean in row.means else []
            assert words == (row.group, row.method, row.params.split()[0], *tasks, *printed)


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4", "table5", "table6"])
def test_a_table_fits_a_terminal_of_100_columns(table):
    said = [line for line in compare(table, []).splitlines() if line.strip() not in PAPER_TABLES[table].notes]
    assert max(map(len, said)) <= 100


def test_a_mean_of_ours_is_printed_once_every_task_of_it_has_runs(tmp_path):
    metric = {task: get_task(task).primary_metric for task in PAPER_TABLES["table1"].means["superglue"]}
    runs = [paper_run(tmp_path / task, task, {name: 0.5 + n / 10}) for n, (task, name) in enumerate(metric.items())]
    few = blocks_of(compare("table1", runs[1:]))[1]
    assert next(words for words in few if words[0] == "ours") == ["ours", "60.0", "70.0", "80.0", "90.0"]
    whole = blocks_of(compare("table1", runs))[1]
    assert next(words for words in whole if words[0] == "ours") == [
        "ours",
        "50.0",
        "60.0",
        "70.0",
        "80.0",
        "90.0",
        "70.0",
    ]


def test_runs_that_do_not_agree_have_a_line_each_in_the_table(tmp_path):
    own = paper_run(tmp_path / "own", "rte", {"accuracy": 0.8})
    other = paper_run(tmp_path / "other", "rte", {"accuracy": 0.6}, {"tuner.lowrank_lr": 0.1})
    lines = [words for words in blocks_of(compare("table1", [own, other]))[0] if words[0] == "ours"]
    assert lines == [["ours", "80.0"], ["ours", "60.0"]]


def test_a_prompt_that_started_from_a_source_is_spot(tmp_path):
    config = load_config(
        None, {"task": "rte", "tuner.name": "prompt-tuning", "init.from": "runs/mnli", "data.protocol": "paper"}
    )
    assert paper_row(scored(config)) == PaperPlace("spot", "transfer")
    (line,) = lines_of(compare("table1", [write_results(tmp_path, config, {"accuracy": 0.7})]), "rte")
    assert (line[1:3], line[5]) == (["70.0", "69.8"], "spot")


def test_every_method_that_the_paper_has_and_we_have_is_called_as_its_row():
    rows = {row.method for table in PAPER_TABLES.values() for row in table.rows}
    ours = {member().name for member in get_args(get_args(Method)[0])}
    assert {"dept", "prompt-tuning", "lora", "bitfit", "fine-tuning"} <= rows & ours
    for method in rows & ours:
        tuner = next(member for member in get_args(get_args(Method)[0]) if member().name == method)()
        assert paper_row(scored(TrainConfig(task="rte", tuner=tuner))).method == method


@pytest.mark.parametrize(
    ("tuner", "source", "together", "place"),
    [
        ("dept", None, (), ("dept", "single-task")),
        ("dept", "runs/mnli", (), ("dept", "single-task")),
        ("lora", None, ("rte", "cola"), ("lora", "multi-task")),
        ("prompt-tuning", "runs/mnli", ("rte", "cola"), ("spot", "multi-task-transfer")),
    ],
)
def test_runs_of_several_tasks_and_from_sources_have_rows_of_their_own(tuner, source, together, place):
    config = load_config(None, {"task": "rte", "tuner.name": tuner, "init.from": source})
    assert paper_row(scored(config, together=together)) == PaperPlace(*place)


def test_baselines_of_table_3_say_that_theirs_were_trained_on_four_tasks(tmp_path):
    config = load_config(PAPER / "table3" / "dept" / "vqa.yaml")
    lora = replace(config, tuner=load_config(None, {"tuner.name": "lora"}).tuner)
    text = compare("table3", [write_results(tmp_path, lora, {"vqa_accuracy": 60.0})])
    assert "trained on one task (the paper's: vqa, gqa, nlvr2 and coco together)" in text
    assert lines_of(text, "vqa")[0][:5] == ["vqa", "60.0", "63.7", "+-", "0.2"]


def test_csv_has_a_number_a_line_and_ours_with_how_many_runs(tmp_path):
    runs = [paper_run(tmp_path / str(n), "rte", {"accuracy": value}, {"seed": n}) for n, value in enumerate((0.8, 0.9))]
    lines = list(csv.DictReader(io.StringIO(compare("table1", runs, form="csv"))))
    printed = sum(len(row.values) + len(row.means) for row in PAPER_TABLES["table1"].rows)
    assert len([line for line in lines if line["source"] == "paper"]) == printed
    (ours,) = [line for line in lines if line["source"] == "ours"]
    assert (ours["method"], ours["column"], ours["mean"], ours["std"], ours["runs"]) == (
        "dept",
        "rte",
        "85.0",
        "7.1",
        "2",
    )


def test_markdown_has_every_row_and_column(tmp_path):
    run = paper_run(tmp_path, "rte", {"accuracy": 0.8})
    lines = [line for line in compare("table1", [run], form="markdown").splitlines() if line.startswith("|")]
    assert lines[0].count("|") == 4 + 13 + 2 + 1
    assert len(lines) == 2 + 17 + 1
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "| single-task | dept | ours |  |" in lines[10]


def test_the_command_writes_a_table_to_a_file(tmp_path, capsys):
    assert main(["report", "--paper", "table3", "--format", "markdown", "--out", str(tmp_path / "t.md")]) == 0
    assert (tmp_path / "t.md").read_text().startswith("### Table 3: VQA v2")
    assert main(["report", "--paper", "table3", "--out", str(tmp_path / "no" / "t.md")]) == 2
    assert "there is no folder " in capsys.readouterr().err


def test_runs_that_differ_in_seed_and_folders_alone_are_averaged(tmp_path):
    values = [0.80, 0.84, 0.85]
    runs = [
        paper_run(
            tmp_path / str(n), "rte", {"accuracy": value},
            {"seed": n, "output_dir": str(tmp_path / str(n)), "data.dir": f"data{n}", "data.num_workers": n},
        )
        for n, value in enumerate(values)
    ]  # fmt: skip
    (line,) = lines_of(compare("table1", runs), "rte")
    assert line[1:4] == [f"{100 * statistics.fmean(values):.1f}", "+-", f"{100 * statistics.stdev(values):.1f}"]
    assert line[6] == "3"


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ({"tuner.lowrank_lr": 0.1}, "not as the released run: tuner.lowrank_lr"),
        ({"model.backbone": "t5-small"}, "model.backbone t5-small (the paper's: t5-base)"),
        ({"decode.num_beams": 4}, "decode.num_beams 4 (the paper's: 1)"),
        ({"data.batch_size": 8, "loop.max_steps": 9}, "not as the released run: data.batch_size, loop.max_steps"),
    ],
)
def test_runs_that_do_not_agree_get_a_line_each_and_say_what_is_not_the_papers(tmp_path, overrides, note):
    own = paper_run(tmp_path / "own", "rte", {"accuracy": 0.8})
    other = paper_run(tmp_path / "other", "rte", {"accuracy": 0.6}, overrides)
    text = compare("table1", [own, other])
    first, second = lines_of(text, "rte")
    assert (first[1], first[4], second[1], second[4]) == ("80.0", "1", "60.0", "1")
    assert f"[2] not the paper's: {note}" in text
    (key,) = list(overrides)[:1]
    assert [note for note in notes_of(text) if "apart from the other runs" in note and key in note]


def test_another_method_stands_beside_its_own_row(tmp_path):
    lora = load_config(
        None, {"task": "rte", "tuner.name": "lora", "data.protocol": "paper", "decode.method": "generate"}
    )
    runs = [
        paper_run(tmp_path / "dept", "rte", {"accuracy": 0.8}),
        write_results(tmp_path / "lora", lora, {"accuracy": 0.7}),
    ]
    first, second = lines_of(compare("table1", runs), "rte")
    assert (first[1:3], first[5]) == (["80.0", "79.1"], "dept")
    assert (second[1:3], second[5]) == (["70.0", "75.5"], "lora")


def test_a_method_without_a_row_has_no_number_beside_it(tmp_path):
    config = load_config(None, {"task": "rte", "tuner.name": "prefix-tuning", "data.protocol": "paper"})
    text = compare("table1", [write_results(tmp_path, config, {"accuracy": 0.7})])
    assert lines_of(text, "rte")[0][:3] == ["rte", "70.0", "-"]
    glue = blocks_of(text)[0]
    assert glue[-2:] == [["not", "in", "the", "paper"], ["prefix-tuning", "70.0"]]
    assert "no row of prefix-tuning" in text


def test_drawn_scenes_are_marked_and_never_averaged_with_photographs(tmp_path):
    drawn = config_from_tree(demo_settings(get_task("vqa"), "dept"))
    photographs = load_config(PAPER / "table3" / "dept" / "vqa.yaml")
    scores = {"vqa_accuracy": 60.0, "vqa_accuracy_legacy_vlt5": 59.0}
    runs = [
        write_results(tmp_path / "drawn", drawn, {**scores, "vqa_accuracy": 89.6}, rows=2_000),
        write_results(tmp_path / "photographs", photographs, scores),
    ]
    text = compare("table3", runs)
    lines = lines_of(text, "vqa")
    assert [(line[1], line[5], line[6]) for line in lines] == [
        ("89.6", "vqa_accuracy", "1"),
        ("59.0", "vqa_accuracy_legacy_vlt5", "1"),
        ("60.0", "vqa_accuracy", "1"),
        ("59.0", "vqa_accuracy_legacy_vlt5", "1"),
    ]
    (note,) = [note for note in notes_of(text) if "not the paper's" in note]
    assert (
        "drawn scenes (the demo's); 2,000 test rows (the paper's: 26,280); model.backbone demo (the paper's: t5-base)"
        in note
    )
    assert "model.image_encoder demo (the paper's: RN101-openai)" in note
    assert [line[-2:] for line in lines[:2]] == [["[1]", "[2]"]] * 2
    assert "by which Sung et al. score" in text


def test_a_vqa_run_without_the_legacy_score_says_what_makes_it(tmp_path):
    run = write_results(tmp_path, load_config(PAPER / "table3" / "dept" / "vqa.yaml"), {"vqa_accuracy": 60.0})
    text = compare("table3", [run])
    assert [line[1] for line in lines_of(text, "vqa")] == ["60.0", "-"]
    assert f"vqa_accuracy_legacy_vlt5 is made by: dept-vl eval --checkpoint {tmp_path}" in text


@pytest.mark.parametrize(
    ("rows", "others", "note"),
    [
        (20, {}, "20 test rows (the paper's: 139)"),
        (None, {"data": {"complete": False, "rows": 139}}, "trained on a subset of the data"),
        (None, {"data": {"complete": True, "rows": 139}}, None),
    ],
)
def test_a_subset_is_marked(tmp_path, rows, others, note):
    text = compare("table1", [paper_run(tmp_path, "rte", {"accuracy": 0.8}, rows=rows, **others)])
    assert notes_of(text) == ([] if note is None else [f"[1] not the paper's: {note}"])


def test_results_of_earlier_versions_are_read_with_their_runs_settings(tmp_path):
    """The first results files held no settings; later ones none that came since."""
    config = load_config(PAPER / "table1" / "dept" / "rte.yaml")
    (tmp_path / "config.yaml").write_text(dump_config(config).replace("  loss_mean: tokens\n", ""))
    (tmp_path / "results-test.json").write_text(json.dumps({"metrics": {"accuracy": 0.8}}))
    text = compare("table1", [tmp_path])
    assert lines_of(text, "rte")[0][1] == "80.0"
    assert notes_of(text) == ["[1] not the paper's: test rows not recorded"]


def test_a_folder_of_seeds_is_read_as_its_runs(tmp_path):
    config = load_config(PAPER / "table1" / "dept" / "rte.yaml")
    content = {
        "config": asdict(config),
        "metrics": {"accuracy": {"mean": 0.8, "std": 0.1, "values": [0.7, 0.9]}},
        "runs": [{"decode": "generate", "seed": 0}, {"decode": "generate", "seed": 1}],
    }
    (tmp_path / "seeds.json").write_text(json.dumps(content))
    assert "80.0 +- 14.1" in compare("table1", [tmp_path])
    for seed, value in ((0, 0.5), (1, 0.7)):  # scored again since then
        write_results(tmp_path / f"seed-{seed}", replace(config, seed=seed), {"accuracy": value})
    text = compare("table1", [tmp_path])
    assert "60.0 +- 14.1" in text
    assert notes_of(text) == []


def test_protocols_are_mixed_only_when_asked_to(tmp_path):
    runs = [
        paper_run(tmp_path / protocol, "rte", {"accuracy": value}, {"data.protocol": protocol})
        for protocol, value in (("fixed", 0.7), ("paper", 0.8))
    ]
    with pytest.raises(ConfigError, match="runs of different protocols are not comparable: 'fixed'"):
        compare("table1", runs)
    lines = lines_of(compare("table1", runs, mixed=True), "rte")
    assert [(line[1], line[6]) for line in lines] == [("70.0", "fixed"), ("80.0", "paper")]


def test_two_ways_to_decode_get_a_line_each(tmp_path):
    runs = [paper_run(tmp_path / m, "rte", {"accuracy": 0.7}, method=m) for m in ("generate", "score")]
    text = compare("table1", runs)
    assert [line[7] for line in lines_of(text, "rte")] == ["generate", "score"]
    assert "decode score (the paper's: generate)" in text


def few_shot(folder, metrics, **overrides):
    config = load_config(PAPER / "table4_5" / "dept" / "superglue-cb-k16.yaml", overrides)
    config = replace(config, init=replace(config.init, source="runs/mnli-dept"))
    return write_results(folder, config, metrics)


@pytest.mark.parametrize(("table", "number"), [("table4", "78.6 +- 4.3"), ("table5", "78.6 +- 4.3")])
def test_few_shot_runs_have_their_tables(tmp_path, table, number):
    text = compare(table, [few_shot(tmp_path, {"accuracy": 0.9})])
    row = next(line for line in text.splitlines() if "superglue-cb k=16" in line)
    assert row.split()[2] == "90.0"
    assert number in row
    assert notes_of(text) == []


def test_the_earlier_name_of_tables_4_and_5_prints_both(tmp_path):
    text = compare("table4_5", [few_shot(tmp_path, {"accuracy": 0.9})])
    assert [line for line in text.splitlines() if line.startswith("Table ")] == [
        "Table 4: few examples, BoolQ, CB and SciTail, test",
        "Table 5: few examples, GLUE and SuperGLUE, test",
    ]
    assert text.count("90.0") == 4  # in each of the tables, and in the list below it


def test_table_6_is_by_backbone(tmp_path):
    config = load_config(PAPER / "table1" / "dept" / "sst2.yaml", {"model.backbone": "meta-llama/Llama-2-13b-hf"})
    text = compare("table6", [write_results(tmp_path, config, {"accuracy": 0.95})])
    line = lines_of(text, "sst2")[-1]
    assert line[1] == "llama-2-13b"
    assert line[2:4] == ["95.0", "96.01"]
    with pytest.raises(ConfigError, match="a run of 'sst2' on t5-base has no cell in table6"):
        compare("table6", [paper_run(tmp_path / "t5", "sst2", {"accuracy": 0.9})])


def test_a_run_of_another_table_is_refused(tmp_path):
    run = few_shot(tmp_path, {"accuracy": 0.9}, **{"data.few_shot": 8})
    with pytest.raises(ConfigError, match="a run of 'superglue-cb' with 8 examples on t5-base has no cell in table4"):
        compare("table4", [run])


def test_what_cannot_be_read_is_named(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="holds no test scores"):
        compare("table1", [tmp_path])
    for content in (
        "{}",
        "[]",
        '{"metrics": {"accuracy": "high"}}',
        '{"metrics": {}, "config": {"task": "rte"}, "data": 3}',
    ):
        (tmp_path / "results-test.json").write_text(content)
        with pytest.raises(CheckpointError, match="cannot read scores"):
            compare("table1", [tmp_path])
    paper_run(tmp_path, "rte", {"f1": 0.5})
    with pytest.raises(CheckpointError, match="has no 'accuracy'"):
        compare("table1", [tmp_path])
    assert main(["report", "--paper", "tabel1", str(tmp_path)]) == 2
    assert "unknown table 'tabel1'; did you mean 'table1'" in capsys.readouterr().err
    assert main(["report", "--paper", "table7"]) == 2
    assert "table7: has means over tasks and speeds, which no run stands beside" in capsys.readouterr().err


def test_an_empty_table_prints_the_papers_numbers(capsys):
    assert main(["report", "--paper", "table3"]) == 0
    assert "113.7 +- 0.3" in capsys.readouterr().out
    assert main(["report", "--paper", "table1"]) == 0
    assert "have 79,560" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("t5-base", "t5-base"),
        ("google-t5/t5-base", "t5-base"),
        ("/models/t5-base", "t5-base"),
        ("/cache/hub/models--google-t5--t5-base/snapshots/" + "a" * 40, "t5-base"),
        ("demo", "demo"),
    ],
)
def test_a_backbone_is_named_by_its_model(given, name):
    assert short_name(given) == name
