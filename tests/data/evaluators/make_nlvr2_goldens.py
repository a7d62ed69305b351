"""Makes nlvr2_goldens.json: what NLVR2's own script prints of made-up predictions.

    python make_nlvr2_goldens.py --metrics nlvr/nlvr2/eval/metrics.py

The script runs as it is. It reads a CSV of identifiers and predictions and a file of examples, a line each.
"""

import argparse
import contextlib
import io
import json
import random
import runpy
import sys
import tempfile
from pathlib import Path


def examples(rng: random.Random) -> list[dict]:
    """Returns examples of twenty sets: up to four pairs, each asked about with one sentence or two."""
    found = []
    for of_set in rng.sample(range(1000), 20):
        for sentence in range(rng.choice((1, 2))):
            for pair in sorted(rng.sample(range(4), rng.choice((1, 2, 3, 4)))):
                label = rng.choice(("True", "False"))
                found.append({"identifier": f"dev-{of_set}-{pair}-{sentence}", "label": label})
    rng.shuffle(found)
    return found


def printed(script: Path, found: list[dict], predictions: dict[str, str]) -> dict[str, float]:
    """Returns what the script prints of some predictions."""
    with tempfile.TemporaryDirectory() as folder:
        csv, data = Path(folder, "predictions.csv"), Path(folder, "dev.json")
        csv.write_text("".join(f"{name},{text}\n" for name, text in predictions.items()))
        data.write_text("".join(json.dumps(one) + "\n" for one in found))
        arguments, sys.argv = sys.argv, [str(script), str(csv), str(data)]
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                runpy.run_path(str(script))
        finally:
            sys.argv = arguments
    return {name: float(value) for name, value in (line.split("=") for line in output.getvalue().split())}


def main() -> None:
    """Writes nlvr2_goldens.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, required=True)
    script = parser.parse_args().metrics
    rng = random.Random(0)
    found = examples(rng)
    cases = []
    for right in (0.0, 0.5, 0.9, 1.0):
        other = {"True": "False", "False": "True"}
        predictions = {
            one["identifier"]: rng.choice((str, str.lower))(
                one["label"] if rng.random() < right else other[one["label"]]
            )
            for one in found
        }
        cases.append({"predictions": predictions, "printed": printed(script, found, predictions)})
    content = {"examples": found, "cases": cases}
    Path(__file__).with_name("nlvr2_goldens.json").write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
