"""Writes the files of ``configs/paper`` that follow from the paper's tables: one a number, a few lines over its row's.

    python -m benchmarks.paper_configs

The method with its settings, and where they come from, goes to ``method.yaml`` of a row's folder, and every number of
the row to a file of its own that extends that, its header saying number and command. What is common to several rows is
written by hand, in ``configs/paper/bases``; so are DePT's own files of Tables 1 to 3. A row whose method is not
registered is not written, and ``tests/reports/test_paper_configs.py`` names every such row.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.paper_configs.rows import (
    GLUE,
    LARGE,
    PROMPTS,
    ROWS,
    SIZES,
    SOURCES,
    SUPERGLUE,
    Row,
)
from dept_vl.reports.paper_numbers import PaperRow

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
METHOD_FILE = "method.yaml"
_LONG = ("nq", "hotpotqa", "searchqa", "newsqa")
"""Of Table 2: texts of 512 tokens, and generated answers of 19 tokens at most."""
_LARGEST = 100_000
"""Rows of a task of Table 2 that an epoch has at most."""
_DEPT_SOURCES = ("mnli", "qqp", "sst2", "squad", "superglue-record")
"""Section 3.4 of the paper."""
_JOINT = ("vqa", "gqa-vlt5", "nlvr2", "coco")
"""Sung et al.'s four tasks."""
_TITLES = {
    "fine-tuning": "full fine-tuning", "adapter": "Adapter", "adapterdrop": "AdapterDrop", "bitfit": "BitFit",
    "lora": "LoRA", "lst": "LST", "prompt-tuning": "prompt tuning", "spot": "SPoT", "attempt": "ATTEMPT", "mpt": "MPT",
    "dept": "DePT", "hyperformer": "HyperFormer", "hyperdecoder": "HyperDecoder", "p-tuning": "P-tuning",
    "ia3": "(IA)3",
}  # fmt: skip
_TASKS = {
    "cola": ("CoLA", "Matthews correlation"), "mnli": ("MNLI", "accuracy"), "mrpc": ("MRPC", "accuracy"),
    "qnli": ("QNLI", "accuracy"), "qqp": ("QQP", "accuracy"), "rte": ("RTE", "accuracy"), "sst2": ("SST-2", "accuracy"),
    "stsb": ("STS-B", "Pearson correlation"), "superglue-boolq": ("BoolQ", "accuracy"),
    "superglue-cb": ("CB", "accuracy"), "superglue-multirc": ("MultiRC", "F1 over all answers"),
    "superglue-wic": ("WiC", "accuracy"), "superglue-wsc": ("WSC", "accuracy"), "nq": ("Natural Questions", "F1"),
    "hotpotqa": ("HotpotQA", "F1"), "searchqa": ("SearchQA", "F1"), "newsqa": ("NewsQA", "F1"),
    "winogrande": ("WinoGrande", "accuracy"), "yelp-polarity": ("Yelp-2", "accuracy"),
    "scitail": ("SciTail", "accuracy"), "paws": ("PAWS", "accuracy"), "vqa": ("VQA v2", "VQA accuracy"),
    "coco": ("COCO captions", "CIDEr"),
}  # fmt: skip
"""Task -> how the paper calls it, and its score."""


def paper_files(rows: Sequence[Row] = ROWS) -> dict[Path, str]:
    """Returns the files of every row, by their paths in `PAPER`."""
    files: dict[Path, str] = {}
    for row in rows:
        folder = Path(row.table, row.folder)
        if row.is_mix:
            for name, tasks in ((folder.name, GLUE), (f"{folder.name}-superglue", SUPERGLUE)):
                path = folder.with_name(f"{name}.yaml")
                files[path] = _mix_file(row, path, tasks)
            continue
        files[folder / METHOD_FILE] = _method_file(row, folder)
        for task, few_shot in _cells(row):
            path = folder / f"{task}{'' if few_shot is None else f'-k{few_shot}'}.yaml"
            files[path] = _task_file(row, path, task, few_shot)
        if row.sources is not None:
            files[folder / "sources.yaml"] = _sources_file(row, folder / "sources.yaml", row.sources)
        if row.table == "table3":
            files[folder / "joint.yaml"] = _joint_file(row, folder / "joint.yaml")
    return files


def _cells(row: Row) -> Iterator[tuple[str, int | None]]:
    """Yields the task and k of every number of a row, once where two tables have it."""
    yield from dict.fromkeys((task, one.few_shot) for _, one in row.paper_rows for task in one.values)


def _printed(one: PaperRow, task: str) -> str:
    """Returns a number as the paper prints it."""
    return f"{one.values[task]:.1f}" + (f" +- {one.std[task]:.1f}" if task in one.std else "")


def _method_file(row: Row, folder: Path) -> str:
    numbers = row.table.removeprefix("table").replace("_", " and ")
    head = [
        f"{_title(row)} in Table{'s' if '_' in row.table else ''} {numbers} of the paper (Shi & Lipani 2024), "
        f"{_backbone(row)}: what its tasks have in common.",
        "Paper: no number of its own.",
        *_command("train", f"--task TASK {_with_config(row, folder / 'TASK.yaml')}"),
        row.text,
    ]
    bases = [f"../../bases/{name}.yaml" for name in row.bases]
    extends = {"extends": bases[0] if len(bases) == 1 else bases} if bases else {}
    return _file(head, {**extends, **row.settings})


def _task_file(row: Row, path: Path, task: str, few_shot: int | None) -> str:
    """Returns the file of one number, or of one that two tables have."""
    title, score = _TASKS[task]
    found = [(table, one) for table, one in row.paper_rows if one.few_shot == few_shot and task in one.values]
    tables = [table.removeprefix("table") for table, _ in found]
    printed = {table: _printed(one, task) for (_, one), table in zip(found, tables, strict=True)}
    same = len(set(printed.values())) == 1
    numbers = printed[tables[0]] if same else ", ".join(f"{value} (Table {table})" for table, value in printed.items())
    where = f"Table{'s' if len(tables) > 1 else ''} {' and '.join(tables)} of the paper (Shi & Lipani 2024)"
    examples = "" if few_shot is None else f" from {few_shot} examples"
    over_seeds = ", over three seeds" if "+-" in numbers else ""
    head = [
        f"{title}{examples}: {where}, row {_title(row)}{_group(row)} on {_backbone(row)}, test split.",
        f"Paper: {score} {numbers}{over_seeds}.",
        *_run(row, path, task, tables),
        *(
            []
            if row.table != "table3"
            else [
                "The paper's row was trained with GQA and NLVR2 and the other task in one run; this is one task alone."
            ]
        ),
    ]
    if row.table == "table3":
        return _file(head, {"extends": [f"../../bases/clip-t5-{task}.yaml", METHOD_FILE]})
    return _file(head, {"extends": METHOD_FILE, "task": task, **_of_task(row, task, few_shot)})


def _of_task(row: Row, task: str, few_shot: int | None) -> dict[str, Any]:
    """Returns what a task has beside its row's settings."""
    settings: dict[str, dict[str, Any]] = {}
    if task == "superglue-multirc" and few_shot is None:
        settings["data"] = {"max_source_length": 348}  # as MPT's and DePT's
    if task in LARGE and row.epochs is not None:
        settings["loop"] = {"epochs": row.epochs}
    if task in _LONG:
        settings |= {"data": {"max_source_length": 512}, "decode": {"max_new_tokens": 19}}
    if few_shot is not None:
        settings["data"] = {"few_shot": few_shot}
    if row.table == "table2":
        steps = 10 * _LARGEST // 32
        is_larger = SIZES.get(task, 0) > _LARGEST
        settings["loop"] = {"max_steps": steps, "eval_every_steps": steps // 10} if is_larger else {"epochs": 10}
    return settings


def _mix_file(row: Row, path: Path, tasks: str) -> str:
    """Returns the file of a row of several tasks in one run."""
    (_, one), *_ = row.paper_rows
    numbers = ", ".join(f"{_TASKS[task][0]} {_printed(one, task)}" for task in tasks.split("+"))
    head = [
        f"{_title(row)}{_group(row)} in Table 1 of the paper (Shi & Lipani 2024), T5-base: "
        f"{len(tasks.split('+'))} tasks "
        "in one run.",
        f"Paper: {numbers}.",
        *_command("train", f"{_with_config(row, path)} --output-dir runs/{path.stem}"),
        *_command("eval", f"--checkpoint runs/{path.stem}"),
        *_command("report", f"--paper table1 runs/{path.stem}"),
        row.text,
    ]
    bases = [f"../bases/{name}.yaml" for name in row.bases]
    return _file(head, {"extends": bases[0], "task": tasks, **row.settings})


def _sources_file(row: Row, path: Path, settings: Mapping[str, Any]) -> str:
    """Returns the file of the source tasks in one run, from which the row's runs start."""
    head = [
        f"The source tasks of {_title(row)} in one run, T5-base: what the runs of its rows start from.",
        "Paper: no number of its own.",
        *_command("train", f"{_with_config(row, path)} --output-dir runs/{row.folder}-sources"),
        f"The teachers are a run of each task. {PROMPTS} Where rates and epochs come from is said in {METHOD_FILE}.",
    ]
    return _file(head, {"extends": "../../bases/attempt-mix.yaml", "task": "+".join(SOURCES), **settings})


def _joint_file(row: Row, path: Path) -> str:
    """Returns the file of the four tasks of Sung et al. in one run."""
    (_, one), *_ = row.paper_rows
    head = [
        f"VQA v2, GQA, NLVR2 and COCO captions in one run: Table 3 of the paper, row {_title(row)} on "
        f"{_backbone(row)}.",
        f"Paper: VQA accuracy {_printed(one, 'vqa')}, CIDEr {_printed(one, 'coco')}.",
        *_command("train", f"{_with_config(row, path)} --output-dir runs/joint-{row.folder}"),
        *_command("eval", f"--checkpoint runs/joint-{row.folder}"),
        *_command("report", f"--paper table3 runs/joint-{row.folder}"),
    ]
    return _file(head, {"extends": ["../../bases/clip-t5-joint.yaml", METHOD_FILE]})


def _run(row: Row, path: Path, task: str, tables: Sequence[str]) -> list[str]:
    """Returns the lines of a header that say how to get and see the number."""
    run = f"runs/{task}-{row.folder}" if row.table in ("table1", "table2") else f"runs/{path.stem}-{row.folder}"
    is_default = run == f"runs/{task}-{row.tuner}"
    output = "" if is_default else f" --output-dir {run}"
    if row.table in ("table1", "table2"):
        lines = _command("train", f"--task {task} {_with_config(row, path)}{output}")
        lines += _command("eval", f"--checkpoint {run}")
    elif row.table == "table3":
        lines = _command("train", f"--task {task} {_with_config(row, path)} --seeds 9595,9596,9597{output}")
    elif row.method == "dept":
        lines = _command(
            "transfer",
            f"--target {task} --sources {','.join(source for source in _DEPT_SOURCES if source != task)} "
            f"--config configs/paper/{path.as_posix()} "
            f"--source-config configs/paper/table4_5/dept/sources.yaml --seeds 0,1,2{output}",
        )
    else:
        lines = _command("train", f"--task {task} {_with_config(row, path)} --seeds 0,1,2{output}")
    for table in tables:
        lines += _command("report", f"--paper table{table} {run}")
    return lines


def _with_config(row: Row, path: Path) -> str:
    return f"--tuner {row.tuner} --config configs/paper/{path.as_posix()}"


def _command(name: str, words: str) -> list[str]:
    """Returns a command as lines of a header, marked by their indent."""
    data = "" if name in ("report", "eval") else " --data-dir DATA"
    return [f"  dept-vl {name} {words}{data}"]


def _title(row: Row) -> str:
    return _TITLES[row.method]


def _group(row: Row) -> str:
    return " (m)" if row.is_mix else ""


def _backbone(row: Row) -> str:
    return "T5-base + frozen CLIP" if row.table == "table3" else "T5-base"


def _file(head: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Returns a file: its header, wrapped, and its settings."""
    lines: list[str] = []
    for text in head:
        if text.startswith("  "):
            lines += _wrapped_command(text)
        else:
            lines += [f"# {line}" for line in textwrap.wrap(text, 116, break_long_words=False, break_on_hyphens=False)]
    dumped = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=110)
    return "\n".join(lines) + "\n" + dumped


def _wrapped_command(text: str) -> list[str]:
    """Returns a command on lines of 120 characters, each but the last ending as a shell continues it.

    A flag stays with its value.
    """
    first, *flags = text.strip().split(" --")
    lines = [first]
    for flag in flags:
        if len(lines[-1]) + len(flag) > 105:
            lines.append(f"    --{flag}")
        else:
            lines[-1] += f" --{flag}"
    return [f"#   {line}{end}" for line, end in zip(lines, [*[" \\"] * (len(lines) - 1), ""], strict=True)]
