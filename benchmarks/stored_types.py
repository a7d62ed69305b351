"""What the number type of stored features does to a trained run's scores, and to the size of the store.

    python -m benchmarks.stored_types --work FOLDER RUN ...

A RUN is a run of the demo. Its adapter answers the test rows of features in every type: copies of the run say the type
in their settings and where the adapter records its features, so that they are taken. It prints a line a type: bytes of
the store, the score, its difference from float32's, and how many answers differ from those. The last result is in
docs/data.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data_prep.first_use.data_dir import open_data_dir
from dept_vl.data.feature_format import differences, finished_stores, read_index
from dept_vl.evaluators import display_scale
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.runs.folder import read_run_config

_ABOUT = "adapter_config"  # what an adapter's weights say of it
TYPES = ("float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class Outcome:
    """What a run made of features in one type.

    Attributes:
        store_bytes: Size of their shards.
        score: The run's own, as papers print it.
        answers: To the test rows, in order.
    """

    store_bytes: int
    score: float
    answers: list[str]


def retyped(run: Path, dtype: str, work: Path) -> Path:
    """Copies a run as one whose adapter was trained on features of another type."""
    folder = work / f"{run.name}-{dtype}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "*-test.json*"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["image_encoder"]["dtype"] = dtype
    config["output_dir"] = str(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    adapter = json.loads((folder / "adapter_config.json").read_text())
    adapter["features"]["dtype"] = dtype
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    weights = folder / "adapter_model.safetensors"
    with safe_open(weights, "pt") as file:
        about = json.loads(file.metadata()[_ABOUT])
    about["features"]["dtype"] = dtype
    save_file(load_file(weights), weights, metadata={_ABOUT: json.dumps(about)})
    return folder


def measure(run: Path, dtype: str, work: Path) -> Outcome:
    """Scores a run on features of a type, which are stored where they are not yet."""
    folder = retyped(run, dtype, work)
    config = read_run_config(folder)
    data_dir = open_data_dir(config)
    result = evaluate_run(config, data_dir, folder)
    wanted = config.model.image_encoder.known_fingerprint()
    (store,) = [path for path in finished_stores(data_dir) if not differences(read_index(path).fingerprint, wanted)]
    task = config.resolve_task()
    score = result.metrics[task.primary_metric] * display_scale(task.primary_metric).factor
    answers = [row["answer"] for row in json.loads((folder / "predictions-test.json").read_text())]
    return Outcome(sum(path.stat().st_size for path in store.glob("*.safetensors")), score, answers)


def main(arguments: list[str] | None = None) -> None:
    """Prints a line a type."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stored_types", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--work", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    options = parser.parse_args(arguments)
    exact = [measure(run, "float32", options.work) for run in options.runs]
    for dtype in TYPES:
        found = exact if dtype == "float32" else [measure(run, dtype, options.work) for run in options.runs]
        pairs = list(zip(found, exact, strict=True))
        differing = sum(a != b for one, other in pairs for a, b in zip(one.answers, other.answers, strict=True))
        total = sum(len(one.answers) for one in found)
        moved = ", ".join(f"{one.score - other.score:+.2f}" for one, other in pairs)
        mean = statistics.mean(one.score for one in found)
        print(f"{dtype}: {found[0].store_bytes:,} bytes, {mean:.2f} ({moved}), {differing} of {total} answers differ")


if __name__ == "__main__":
    main()
