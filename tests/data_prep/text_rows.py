"""Small raw folders of text data sets in their Hugging Face columns, for the tests of `prepare`."""

import csv
import gzip
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dept_vl.tasks import get_task
from dept_vl.tasks.examples import example_rows

COLUMNS = ("sentence", "label", "idx")


def cola_rows(count: int) -> list[dict]:
    return [{"sentence": f'Sentence number {n}, "quoted".', "label": n % 2, "idx": n} for n in range(count)]


def made_up_rows(task: str, count: int) -> list[dict]:
    """Rows of a text task: the made-up ones again and again, their first text numbered so that each is another."""
    rows = itertools.islice(itertools.cycle(example_rows(task)), count)
    columns = get_task(task).columns.items()
    text = next(name for wanted in ("text", "text or empty") for name, kind in columns if kind == wanted)
    return [{**row, text: f"{row[text]} ({number})"} for number, row in enumerate(rows)]


def write_rows(path: Path, rows: list[dict]) -> Path:
    """Writes rows in the format that the file's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        cells = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
        with open(path, "w", encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(cells)
            else:  # no quoting, as in GLUE's own files
                file.writelines("\t".join(map(str, line)) + "\n" for line in (rows[0], *(c.values() for c in cells)))
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def cola_folder(folder: Path, suffix: str = ".jsonl", train: int = 30, validation: int = 11) -> Path:
    write_rows(folder / f"train{suffix}", cola_rows(train))
    write_rows(folder / f"validation{suffix}", cola_rows(validation))
    return folder
