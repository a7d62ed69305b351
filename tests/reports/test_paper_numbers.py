import json
from dataclasses import replace
from pathlib import Path

import pytest

from dept_vl.reports.paper_numbers import PAPER_FIGURES, PAPER_TABLES, RELEASED_RUNS
from dept_vl.settings.load import load_config
from dept_vl.tasks import TASKS
from tests.conftest import EXCERPT

PAPER = Path(__file__).parents[2] / "configs" / "paper"


def own_rows(table: str):
    """Returns the rows of DePT on T5-base."""
    return [row for row in PAPER_TABLES[table].rows if row.method == "dept" and row.backbone is None]


CELLS = [
    pytest.param(table, task, row, id=f"{table}-{task}-{row.few_shot}")
    for table in ("table1", "table2", "table3", "table4", "table5")
    for row in own_rows(table)
    for task in PAPER_TABLES[table].tasks
]


def config_path(table: str, task: str, few_shot: int | None) -> Path:
    folder, shots = (table, "") if few_shot is None else ("table4_5", f"-k{few_shot}")
    return PAPER / folder / "dept" / f"{task}{shots}.yaml"


@pytest.mark.parametrize(("table", "task", "row"), CELLS)
def test_every_number_has_a_config_that_names_it_and_its_command(table, task, row):
    path = config_path(table, task, row.few_shot)
    text, config = path.read_text(), load_config(path)
    assert (config.task, config.data.few_shot) == (task, row.few_shot)
    assert config.data.protocol == ("paper" if TASKS[task].protocols else None)
    header = [line for line in text.splitlines() if line.startswith("#")]
    std = f" +- {row.std[task]}" if task in row.std else ""
    assert f" {row.values[task]}{std}" in header[1]
    assert str(path.relative_to(PAPER.parents[1])) in "".join(header)
    assert f"dept-vl report --paper {table}" in text


@pytest.mark.parametrize("task", ["vqa", "coco"])
def test_table_3_is_the_task_s_own_config(task):
    assert load_config(PAPER / "table3" / "dept" / f"{task}.yaml") == load_config(PAPER.parent / task / "dept.yaml")


def test_table_3_trains_and_answers_as_sung_et_al():
    """Ladder-Side-Tuning, VL-T5: scripts/image/prompt_tuning.sh, src/multitask.py, vqa_model.py, caption_model.py."""
    vqa, coco = (load_config(PAPER / "table3" / "dept" / f"{task}.yaml") for task in ("vqa", "coco"))
    assert (vqa.data.batch_size, coco.data.batch_size) == (300, 300 * 50 // 60)
    assert vqa.loop.max_steps == 20 * (605_102 // 300)
    assert coco.loop.max_steps == 20 * -(-566_747 // 250)
    assert (vqa.decode.num_beams, coco.decode.num_beams) == (1, 5)
    assert (vqa.decode.max_new_tokens, coco.decode.max_new_tokens) == (20 - 1, 40 - 1)
    assert (vqa.data.loss_mean, vqa.data.loss_weighting) == ("examples", "score")
    assert (coco.data.loss_mean, coco.data.loss_weighting) == ("tokens", "none")
    for config in (vqa, coco):
        optim = config.optim
        assert (optim.warmup, optim.warmup_proportion, optim.max_grad_norm) == ("transformers", 0.1, 5.0)
        assert (optim.beta1, optim.beta2, optim.eps, optim.weight_decay) == (0.9, 0.999, 1e-6, 0.01)


RELEASED = sorted((EXCERPT / "dept_official").iterdir())
"""Folders of the 17 adapters that the authors released."""


def our_name(folder: Path) -> str:
    return folder.name.removesuffix(".fixed")


def test_the_papers_numbers_are_the_released_ones_rounded():
    values = {
        task: value for table in ("table1", "table2") for row in own_rows(table) for task, value in row.values.items()
    }
    assert {our_name(folder) for folder in RELEASED} == set(RELEASED_RUNS)
    for folder in RELEASED:
        released = json.loads((folder / "test_results.json").read_text())
        task = our_name(folder)
        assert values[task] in {round(value + 1e-9, 1) for value in released.values()}, task
        assert RELEASED_RUNS[task].test in {round(value, 2) for value in released.values()}, task


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_sizes_are_those_of_the_released_adapter(folder):
    adapter, run = json.loads((folder / "adapter_config.json").read_text()), RELEASED_RUNS[our_name(folder)]
    assert (run.num_virtual_tokens, run.rank, run.max_source_length) == (
        adapter["num_virtual_tokens"], adapter["r"], adapter["max_length"],
    )  # fmt: skip
    (path,) = PAPER.glob(f"table[12]/dept/{our_name(folder)}.yaml")
    tuner = load_config(path).tuner
    assert (tuner.prompt_init_text, tuner.alpha) == (adapter["prompt_tuning_init_text"], adapter["lora_alpha"])


@pytest.mark.parametrize("task", RELEASED_RUNS)
def test_a_config_with_a_released_run_is_that_run(task):
    (path,) = PAPER.glob(f"table[12]/dept/{task}.yaml")
    config, run = load_config(path), RELEASED_RUNS[task]
    tuner, data, optim, loop = config.tuner, config.data, config.optim, config.loop
    assert (tuner.lr, tuner.lowrank_lr) == (run.prompt_lr, run.lowrank_lr)
    assert (tuner.num_virtual_tokens, tuner.rank, data.max_source_length) == (
        run.num_virtual_tokens, run.rank, run.max_source_length,
    )  # fmt: skip
    assert (data.batch_size, loop.accumulation_steps) == (run.rows_a_step, run.gradient_accumulation)
    assert (loop.max_steps, config.seed) == (run.steps, run.seed)
    assert (optim.warmup_steps, optim.max_grad_norm) == (run.warmup_steps, run.max_grad_norm)
    assert (optim.warmup, data.loss_mean) == ("transformers", "tokens")
    assert (optim.beta1, optim.beta2, optim.eps, optim.weight_decay) == (0.9, 0.999, 1e-6, 0.0)
    text = path.read_text()
    assert "not published" not in text
    assert f"{run.steps:,} steps of {run.rows_a_step} rows" in " ".join(text.replace("# ", "").split())


def test_the_tasks_without_a_log_say_so():
    for task in ("winogrande", "yelp-polarity", "scitail", "paws"):
        assert task not in RELEASED_RUNS
        text = (PAPER / "table2" / "dept" / f"{task}.yaml").read_text()
        assert "The chosen rates are not published" in text
        assert load_config(PAPER / "table2" / "dept" / f"{task}.yaml").optim.warmup == "transformers"


def test_the_released_recipe_is_what_the_released_runs_share():
    text, vqa = (
        load_config(PAPER.parent / name / "dept-released-recipe.yaml", {"data.max_source_length": 256})
        for name in ("text", "vqa")
    )
    for config in (text, vqa):
        assert replace(config.optim, projection_lr=1.0) == replace(cola().optim, projection_lr=1.0)
        assert (config.data.batch_size, config.data.loss_mean) == (32, "tokens")
    assert text.tuner.budget(768, 256).rank == 30
    longer = load_config(PAPER.parent / "text" / "dept-released-recipe.yaml", {"task": "nq"})
    assert longer.tuner.budget(768, 512).rank == RELEASED_RUNS["nq"].rank


def cola():
    return load_config(PAPER / "table1" / "dept" / "cola.yaml")


def test_printed_means_are_means():
    """But for two, which the paper prints otherwise than its row has it."""
    others = []
    for name, table in PAPER_TABLES.items():
        for row in table.rows:
            for mean, printed in row.means.items():
                values = [row.values[task] for task in table.means.get(mean, ()) if task in row.values]
                if values and abs(sum(values) / len(values) - printed) > 0.1:  # some are cut, not rounded
                    others.append((name, row.method, row.group, row.few_shot, mean))
    assert others == [
        ("table1", "fine-tuning", "multi-task", None, "superglue"),
        ("table5", "dept", None, 32, "superglue"),
    ]


def test_rows_have_the_tables_tasks():
    for table in PAPER_TABLES.values():
        assert set(table.tasks) <= set(TASKS)
        for row in table.rows:
            assert set(row.values) <= set(table.tasks)
            assert set(row.std) <= set(row.values)
    assert {name for name, table in PAPER_TABLES.items() if table.tasks} == {f"table{n}" for n in range(1, 7)}


def _numbers(tree):
    """Yields every number of nested records."""
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _numbers(value)
    elif isinstance(tree, int | float):
        yield tree


def test_nothing_of_the_papers_tables_is_left_out(shared_data):
    source = json.loads((shared_data / "paper" / "tables.json").read_text())
    for name, table in PAPER_TABLES.items():
        ours = [
            number
            for row in table.rows
            for number in (
                *row.values.values(), *row.std.values(), *row.means.values(), row.updated_params_percent,
                row.samples_per_s, row.sst2_samples_per_s,
            )
            if number is not None
        ]  # fmt: skip
        assert sorted(ours) == sorted(_numbers(source[name])), name


def test_nothing_of_the_released_runs_is_left_out(shared_data):
    source = json.loads((shared_data / "paper" / "released_runs.json").read_text())["runs"]
    assert {task: {key: getattr(run, key) for key in source[task]} for task, run in RELEASED_RUNS.items()} == source


GLUE, SUPERGLUE = (
    ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola"),
    ("multirc", "boolq", "wic", "wsc", "cb"),
)


def _two_means(row, source):
    """Compares a row of GLUE and SuperGLUE with the source's, cell by cell."""
    for mean, tasks, prefix in (("glue", GLUE, ""), ("superglue", SUPERGLUE, "superglue-")):
        for task in tasks:
            assert row.values.get(prefix + task) == (source.get(mean) or {}).get(task), (row.method, task)
            assert row.std.get(prefix + task) == (source.get(f"{mean}_std") or {}).get(task), (row.method, task)
        assert row.means.get(mean) == (source.get(mean) or {}).get("mean"), row.method


@pytest.fixture(scope="module")
def printed(shared_data):
    return json.loads((shared_data / "paper" / "tables.json").read_text())


def test_every_cell_of_tables_1_and_5_is_the_papers(printed):
    groups = ("single-task", "multi-task", "transfer", "multi-task-transfer")
    source = {(group, method): row for group in groups for method, row in printed["table1"][group].items()}
    rows = {(row.group, row.method): row for row in PAPER_TABLES["table1"].rows}
    assert rows.keys() == source.keys()
    for key, row in rows.items():
        _two_means(row, source[key])
        assert row.params == source[key]["params"]
    few = {(int(k), m): row for k, rows in printed["table5"].items() if k != "caption" for m, row in rows.items()}
    rows = {(row.few_shot, row.method): row for row in PAPER_TABLES["table5"].rows}
    assert rows.keys() == few.keys()
    for key, row in rows.items():
        _two_means(row, few[key])


def test_every_cell_of_tables_2_3_and_4_is_the_papers(printed):
    names = {"mrqa_mean": "mrqa", "others_mean": "others"}
    for row in PAPER_TABLES["table2"].rows:
        source = dict(printed["table2"][row.method])
        assert (row.params, dict(row.std)) == (source.pop("params"), source.pop("std", {}))
        assert {name: source.pop(key) for key, name in names.items()} == dict(row.means)
        assert source == dict(row.values)
    for row in PAPER_TABLES["table3"].rows:
        source = printed["table3"][row.method]
        assert (row.values["vqa"], row.std["vqa"]) == (source["vqa"], source["vqa_std"])
        assert (row.values["coco"], row.std["coco"]) == (source["cider"], source["cider_std"])
        assert row.updated_params_percent == source["updated_params_percent"]
    for row in PAPER_TABLES["table4"].rows:
        for task, name in (("superglue-boolq", "boolq"), ("superglue-cb", "cb"), ("scitail", "scitail")):
            source = printed["table4"][name][str(row.few_shot)]
            assert row.values[task] == source[row.method]
            assert row.std.get(task) == source.get(f"{row.method}_std")
        assert row.params == printed["table4"]["params"][row.method]
    for table, left in (("table2", 9), ("table3", 7), ("table4", 27)):
        assert len(PAPER_TABLES[table].rows) == left


def test_every_cell_of_tables_6_7_and_8_is_the_papers(printed):
    for row in PAPER_TABLES["table6"].rows:
        assert [row.values["sst2"], row.samples_per_s] == printed["table6"][row.backbone][row.method]
    for table in ("table7", "table8"):
        for row in PAPER_TABLES[table].rows:
            rank = f", r={row.rank}" if row.rank else ""
            source = printed[table][f"{row.method} (m={row.num_virtual_tokens}{rank})"]
            assert [row.means["glue"], row.samples_per_s] == source
            if table == "table8":
                assert row.sst2_samples_per_s == printed[table]["sst2 samples/s"][row.method]
    assert [len(PAPER_TABLES[f"table{n}"].rows) for n in (6, 7, 8)] == [4, 2, 2]


def test_figures_4_and_5_are_the_papers(printed):
    source = dict(printed["figures"]["figure4"])
    source.pop("caption")
    assert list(PAPER_FIGURES["figure4"].num_virtual_tokens) == source.pop("m")
    assert {name: list(curve) for name, curve in PAPER_FIGURES["figure4"].curves.items()} == source
    names = {"one rate 3e-1": "one rate 0.3", "one rate 5e-4": "one rate 0.0005", "two rates": "two rates"}
    source = {names[name]: value for name, value in printed["figures"]["figure5"].items() if name != "caption"}
    assert dict(PAPER_FIGURES["figure5"].bars) == source
