import json
from pathlib import Path

import pytest

from dept_vl.reports.paper_numbers import PAPER_TABLES
from dept_vl.settings.load import load_config
from dept_vl.tasks import TASKS
from tests.conftest import EXCERPT

PAPER = Path(__file__).parents[2] / "configs" / "paper"


def config_path(table: str, cell) -> Path:
    shots = "" if cell.few_shot is None else f"-k{cell.few_shot}"
    return PAPER / table / f"{cell.task}{shots}.yaml"


CELLS = [(table, cell) for table, content in PAPER_TABLES.items() for cell in content.cells]


@pytest.mark.parametrize(("table", "cell"), CELLS, ids=lambda value: getattr(value, "task", value))
def test_every_number_has_a_config_that_names_it_and_its_command(table, cell):
    path = config_path(table, cell)
    text = path.read_text()
    config = load_config(path)
    assert (config.task, config.data.few_shot) == cell.key
    assert config.data.protocol == ("paper" if TASKS[cell.task].protocols else None)
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert ("number not available here" if cell.value is None else str(cell.value)) in header[1]
    assert str(path.relative_to(PAPER.parents[1])) in "".join(header)
    assert f"dept-vl report --paper {table}" in text


def test_there_is_no_config_of_a_number_nobody_prints():
    assert {config_path(table, cell) for table, cell in CELLS} == set(PAPER.rglob("*.yaml")) - {
        PAPER / "table4_5" / "sources.yaml"
    }


@pytest.mark.parametrize("task", ["vqa", "coco"])
def test_table_3_is_the_task_s_own_config(task):
    assert load_config(PAPER / "table3" / f"{task}.yaml") == load_config(PAPER.parent / task / "dept.yaml")


@pytest.mark.parametrize(("table", "cell"), CELLS, ids=lambda value: getattr(value, "task", value))
def test_the_metric_is_one_the_task_is_scored_with(table, cell):
    assert cell.metric == TASKS[cell.task].primary_metric


RELEASED = sorted((EXCERPT / "dept_official").iterdir())
"""Folders of the 17 adapters that the authors released."""


def our_name(folder: Path) -> str:
    return folder.name.removesuffix(".fixed")


def test_the_papers_numbers_are_the_released_ones_rounded():
    values = {cell.task: cell.value for table in ("table1", "table2") for cell in PAPER_TABLES[table].cells}
    assert len(RELEASED) == 17
    for folder in RELEASED:
        released = json.loads((folder / "test_results.json").read_text())
        assert values[our_name(folder)] in {round(value + 1e-9, 1) for value in released.values()}, folder.name


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_sizes_are_those_of_the_released_adapter(folder):
    (path,) = PAPER.glob(f"table[12]/{our_name(folder)}.yaml")
    config, adapter = load_config(path), json.loads((folder / "adapter_config.json").read_text())
    tuner = config.tuner
    assert (tuner.num_virtual_tokens, tuner.rank) == (adapter["num_virtual_tokens"], adapter["r"])
    assert config.data.max_source_length == adapter["max_length"]
    assert (tuner.prompt_init_text, tuner.alpha) == (adapter["prompt_tuning_init_text"], adapter["lora_alpha"])
