"""The files of ``configs/paper``: a file for each number of Tables 1 to 5, and Table 3's counts from its own files."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.paper_configs.files import METHOD_FILE, PAPER, paper_files
from benchmarks.paper_configs.rows import ROWS, WITHOUT
from dept_vl.cli import main
from dept_vl.reports.paper_numbers import PAPER_TABLES
from dept_vl.runs.info import count_as_table_3, count_budget
from dept_vl.settings.load import load_config
from dept_vl.settings.shipped import shipped_configs
from dept_vl.tasks import TASKS

FILES = paper_files()
ALONE = [row for row in ROWS if not row.is_mix]
TABLES = ("table1", "table2", "table3", "table4", "table5")
BY_HAND = {
    *(Path(table, "dept", METHOD_FILE) for table in TABLES[:3]),
    *(
        Path(table, "dept", f"{task}.yaml")
        for table in ("table1", "table2", "table3")
        for task in PAPER_TABLES[table].tasks
    ),
    Path("table4_5/dept/sources.yaml"),
}
"""DePT's own, which ``tests/reports/test_paper_numbers.py`` reads."""

CELLS = [
    pytest.param(table, row, task, id=f"{table}-{row.group or ''}-{row.method}-{row.few_shot or ''}-{task}")
    for table in TABLES
    for row in PAPER_TABLES[table].rows
    for task in row.values
]


def row_of(table, paper_row):
    """Returns the row of the scripts that a row of the paper is; None for one that has none."""
    folder = "table4_5" if table in ("table4", "table5") else table
    found = [row for row in ROWS if (row.table, row.method, row.group) == (folder, paper_row.method, paper_row.group)]
    return found[0] if found else None


def test_every_row_of_the_paper_s_tables_is_one_of_the_scripts_or_says_why_not():
    rows = [
        (table, row) for table in ("table1", "table2", "table3", "table4", "table5") for row in PAPER_TABLES[table].rows
    ]
    without = {(table, row.method) for table, row in rows if row_of(table, row) is None}
    by_hand = {("table1", "dept"), ("table2", "dept"), ("table3", "dept")}
    assert without == by_hand | set(WITHOUT)
    assert all(row.paper_rows for row in ROWS)


def test_the_files_are_those_that_the_scripts_write():
    """Run ``python -m benchmarks.paper_configs`` after a change to tables or rows."""
    for path, text in FILES.items():
        assert (PAPER / path).read_text() == text, path
    found = {path.relative_to(PAPER) for path in PAPER.rglob("*.yaml")} - {
        path.relative_to(PAPER) for path in (PAPER / "bases").iterdir()
    }
    assert found == set(FILES) | BY_HAND, "no file of a number that nobody prints"


@pytest.mark.parametrize(("table", "paper_row", "task"), CELLS)
def test_every_number_has_a_file_that_loads_and_says_it(table, paper_row, task):
    row = row_of(table, paper_row)
    if row is None:
        return  # the test above says which
    if row.is_mix:
        names = (row.folder, f"{row.folder}-superglue")
        paths = [PAPER / row.table / f"{name}.yaml" for name in names]
        path = next(one for one in paths if task in load_config(one).task.split("+"))
    else:
        shots = "" if paper_row.few_shot is None else f"-k{paper_row.few_shot}"
        path = PAPER / row.table / row.folder / f"{task}{shots}.yaml"
    config = load_config(path)
    assert config.tuner.name == row.tuner
    assert task in config.task.split("+")
    assert config.data.few_shot == paper_row.few_shot
    if not row.is_mix:
        assert config.data.protocol == ("paper" if TASKS[task].protocols else None)
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    number = f"{paper_row.values[task]:.1f}" + (f" +- {paper_row.std[task]:.1f}" if task in paper_row.std else "")
    said = " ".join(
        line.removeprefix("# ") for line in head[: next(i for i, one in enumerate(head) if one.startswith("#   "))]
    )
    assert number in said
    assert f"configs/paper/{path.relative_to(PAPER)}" in "".join(head)
    assert f"dept-vl report --paper {table} runs/" in "".join(head)
    assert path in shipped_configs().values()


@pytest.mark.parametrize("path", [path for path in FILES if path.name != METHOD_FILE], ids=str)
def test_a_command_of_a_header_gives_the_file_s_own_task_and_method(path):
    config = load_config(PAPER / path)
    text = re.sub(r" \\\n# +", " ", (PAPER / path).read_text())
    (command,) = [line for line in text.splitlines() if line.startswith(("#   dept-vl train", "#   dept-vl transfer"))]
    words = command.split()
    given = dict(zip(words[3::2], words[4::2], strict=False))
    assert given["--config"] == f"configs/paper/{path}"
    assert given.get("--task", given.get("--target", config.task)) == config.task
    assert given.get("--tuner", config.tuner.label) == config.tuner.label


@pytest.mark.parametrize("path", [path for path in sorted({*FILES, *BY_HAND}) if path.name == METHOD_FILE], ids=str)
def test_a_method_s_file_is_of_any_task_and_says_where_its_settings_come_from(path):
    text = (PAPER / path).read_text()
    task = "vqa" if path.parts[0] == "table3" else "rte"
    assert load_config(PAPER / path, {"task": task}).task == task
    assert text.count("\n#") >= 3
    assert "extends: ../../bases/" in text or path.parts[0] == "table3" or "dept" in path.parts


def test_a_base_is_extended_by_some_file_and_is_no_run_s_settings():
    bases = {path.stem for path in (PAPER / "bases").iterdir()}
    used = {name for row in ROWS for name in row.bases} | {"clip-t5-vqa", "clip-t5-coco", "clip-t5-joint"}
    below = {yaml.safe_load(path.read_text()).get("extends", "") for path in (PAPER / "bases").iterdir()}
    assert bases == used | {name.removesuffix(".yaml") for name in below if name}
    assert not [name for name in shipped_configs() if name.startswith("paper/bases")]


PERCENT = {
    "fine-tuning": 100.0,
    "adapter": 7.98,
    "lora": 7.54,
    "bitfit": 0.83,
    "p-tuning": 1.26,
    "lst": 7.46,
    "dept": 0.74,
}
"""Table 3's."""
TRAINABLE = {
    "adapter": 19_333_632, "lora": 18_170_112, "bitfit": 1_865_416, "p-tuning": 2_842_400, "lst": 17_967_384,
    "dept": 1_658_112,
}  # fmt: skip
"""By Sung et al.'s code (ylsung/Ladder-Side-Tuning), its vocabulary of 32,200 and its visual embedding of 1,581,312."""


def test_table_3_has_these_percentages():
    assert {row.method: row.updated_params_percent for row in PAPER_TABLES["table3"].rows} == PERCENT


@pytest.mark.parametrize("task", ["vqa", "coco"])
@pytest.mark.parametrize("name", PERCENT)
def test_every_percentage_of_table_3_comes_out_of_its_file_in_one_convention(name, task):
    config = load_config(PAPER / "table3" / name / f"{task}.yaml")
    budget = count_as_table_3(config)
    assert round(100 * budget.share, 2) == PERCENT[name]
    assert budget.groups["visual_projection"] == 1_581_312 + (2 * 768 if name == "bitfit" else 0)
    assert budget.backbone == 222_958_848
    assert budget.trainable == TRAINABLE.get(name, budget.total)
    assert round(100 * count_budget(config).share, 2) == PERCENT[name], "at T5's own vocabulary of 32,128 too"


def test_a_run_that_is_none_of_table_3_is_not_counted_so():
    config = load_config(PAPER / "table3" / "dept" / "vqa.yaml")
    assert count_as_table_3(replace(config, model=replace(config.model, visual_projection="linear"))) is None
    assert count_as_table_3(load_config(PAPER / "table1" / "dept" / "rte.yaml")) is None


@pytest.mark.parametrize("path", sorted(PAPER.glob("table3/*/joint.yaml")), ids=lambda path: path.parent.name)
def test_info_counts_a_run_of_all_four_tasks_of_table_3(path, capsys):
    assert main(["info", "--config", str(path)]) == 0
    assert "as Table 3 counts" in capsys.readouterr().out
