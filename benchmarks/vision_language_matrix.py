"""Which families of vision-language models are exact in what, with which releases of transformers, as a Markdown table.

    python -m benchmarks.vision_language_matrix                                  # with the release that is installed
    pip install --no-deps --target OLD transformers==5.15.0 'tokenizers<0.23' 'huggingface-hub<2'
    python -m benchmarks.vision_language_matrix --also OLD                       # and with the one in a folder

Each check is some tests of this repository (`CHECKS`), which say what is compared and how closely; the table says which
of them pass. Exit code 1 where one fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from dept_vl.models.language.families import FAMILIES

ROOT = Path(__file__).parents[1]
MODELS, RUNS = "tests/models/language/test_vision_language.py", "tests/test_vision_language.py"

CHECKS: Mapping[str, tuple[str, ...]] = {
    "logits = tokens inserted": ("test_a_prompt_of_real_tokens_is_the_model_with_those_tokens_inserted",),
    "kept features = pixels": ("test_images_encoded_before_are_read_as_pixels_are",),
    "greedy": ("test_generation_is_that_of_the_model_with_those_tokens_inserted[1]",
               "test_greedy_generation_is_a_loop_of_forwards[dept]"),
    "beams": ("test_generation_is_that_of_the_model_with_those_tokens_inserted[3]",),
    "padding, batch mates": ("test_logits_depend_neither_on_padding_nor_on_batch_mates[dept]",),
    "two adapters": ("test_rows_of_two_adapters_in_one_batch_are_as_each_adapter_alone",),
    "labels": ("test_labels_are_scored_as_teacher_forced_forwards",),
    "weights stay": ("test_training_changes_the_adapter_alone",),
    "connector's gradients": ("test_a_trained_connector_has_the_gradients_of_the_plain_model_and_nothing_else_moves",),
    "LoRA, (IA)3, adapters, stacks": (
        "test_a_linear_method_is_the_plain_model_with_other_weights",
        *(f"test_logits_depend_neither_on_padding_nor_on_batch_mates[{name}]" for name in ("lora", "ia3", "adapter")),
        *(f"test_greedy_generation_is_a_loop_of_forwards[{name}]" for name in ("lora", "ia3", "adapter", "dept+lora")),
    ),
    "resume": ("test_a_run_that_is_stopped_goes_on_to_the_bit",),
}  # fmt: skip
"""Column -> the tests that it stands for; behind a name one value of its parameters where not all are meant."""

Outcome = Mapping[tuple[str, str], list[bool]]
"""(Family, column) -> whether each of its tests passed; none for tests that were skipped."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the tests with every release, prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="folders with other releases of transformers")
    parser.add_argument("--families", nargs="*", default=[], help="default: all")
    arguments = parser.parse_args(words)
    names = arguments.families or [name for name, family in FAMILIES.items() if family.reads_images]
    found: dict[str, Outcome] = {}
    for folder in (None, *arguments.also):
        paths = [*([] if folder is None else [str(folder.resolve())]), str(ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
        found[_release(environment)] = _run(environment, names)
    print(table(names, dict(sorted(found.items()))))
    return int(not all(all(passed) for outcome in found.values() for passed in outcome.values()))


def _release(environment: Mapping[str, str]) -> str:
    code = "import transformers; print(transformers.__version__)"
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def _run(environment: Mapping[str, str], names: Sequence[str]) -> Outcome:
    tests = {test.partition("[")[0] for each in CHECKS.values() for test in each}
    chosen = f"({' or '.join(sorted(tests))}) and ({' or '.join(names)})"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", MODELS, RUNS, "-k", chosen, f"--junitxml={file}"]
        subprocess.run([sys.executable, *words], env=environment, cwd=ROOT, stdout=sys.stderr, check=False)
        return outcomes(ElementTree.parse(file).getroot(), names)


def outcomes(tests: ElementTree.Element, names: Sequence[str]) -> Outcome:
    """Returns what became of the tests that pytest has written of; an error in a fixture is a failure."""
    found: dict[tuple[str, str], list[bool]] = {}
    for test in tests.iter("testcase"):
        name, _, parameters = test.get("name", "").removesuffix("]").partition("[")
        given = parameters.split("-")
        (family,) = set(given) & set(names)
        for column, wanted in CHECKS.items():
            if any(_is_meant(one, name, given) for one in wanted):
                passed = found.setdefault((family, column), [])
                if test.find("skipped") is None:
                    passed.append(test.find("failure") is None and test.find("error") is None)
    return found


def _is_meant(wanted: str, name: str, given: Sequence[str]) -> bool:
    test, _, value = wanted.removesuffix("]").partition("[")
    return test == name and (not value or value in given)


def table(names: Sequence[str], found: Mapping[str, Outcome]) -> str:
    """Returns families by checks: ``all``, or the releases with which all tests of a cell pass.

    Args:
        names: The families.
        found: Release of transformers to what passed.
    """
    rows = [f"| transformers {', '.join(found)} | {' | '.join(CHECKS)} |", "| --- " * (1 + len(CHECKS)) + "|"]
    for name in names:
        cells = [_cell({release: outcome.get((name, one), []) for release, outcome in found.items()}) for one in CHECKS]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(passed: Mapping[str, list[bool]]) -> str:
    exact = [release for release, each in passed.items() if each and all(each)]
    return "all" if len(exact) == len(passed) else ", ".join(exact) or "none"


if __name__ == "__main__":
    sys.exit(main())
