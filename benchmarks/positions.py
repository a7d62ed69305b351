"""Scores trained runs on their test rows, on the same with neutral words before them, and on texts twice as long.

    python -m benchmarks.positions --work FOLDER NAME=RUN,RUN,... NAME=RUN,...

A RUN is a run folder, a NAME's runs differ in their seed. It prints mean and sample deviation over them, and the mean
of each run's own difference from the rows as they are. The last result is in docs/method.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.first_use.data_dir import open_data_dir
from dept_vl.data.manifest import split_path
from dept_vl.evaluators import display_scale
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.runs.folder import read_run_config

NEUTRAL = {"vqa": "look at the picture", "sst2": "here is a review:"}
"""Task to words that change no answer."""

TEXT = {"vqa": "question", "sst2": "sentence"}
"""Task to the column that they are put before."""

VARIANTS: Mapping[str, Callable[[str, str], str]] = {
    "as they are": lambda text, words: text,
    "words before": lambda text, words: f"{words} {text}",
    "twice as long": lambda text, words: f"{text} {text}",
}
"""What becomes of a text."""


def score(run: Path, variant: str, work: Path) -> float:
    """Returns a run's own score on a variant of its test rows, as papers print it."""
    config = read_run_config(run)
    task, data_dir = config.resolve_task(), open_data_dir(config)
    folder = work / f"{task.name}-{variant.replace(' ', '-')}"
    changed = split_path(folder, task, "test")
    if not changed.exists():
        table = pq.read_table(split_path(data_dir, task, "test"))
        name, change = TEXT[task.name], VARIANTS[variant]
        texts = [change(text, NEUTRAL[task.name]) for text in table[name].to_pylist()]
        at = table.schema.get_field_index(name)
        changed.parent.mkdir(parents=True)
        if (data_dir / "features").exists():
            (folder / "features").symlink_to((data_dir / "features").resolve())
        pq.write_table(table.set_column(at, table.schema.field(at), pa.array(texts, pa.string())), changed)
    output = work / f"results-{run.name}-{variant}.json"
    result = evaluate_run(config, folder, run, output=output)
    return result.metrics[task.primary_metric] * display_scale(task.primary_metric).factor


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN,...")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    print("|".join(["", "", *VARIANTS, "difference", ""]))
    for group in options.runs:
        name, _, folders = group.partition("=")
        runs = [Path(folder) for folder in folders.split(",")]
        found = {variant: [score(run, variant, options.work) for run in runs] for variant in VARIANTS}
        clean = found["as they are"]
        cells = [_shown(values) for values in found.values()]
        cells.append(_shown([one - other for one, other in zip(found["words before"], clean, strict=True)]))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _shown(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
