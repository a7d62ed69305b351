"""The exactness matrix says what pytest found, and names tests that there are."""

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.vision_language_matrix import CHECKS, MODELS, ROOT, RUNS, outcomes, table

NAMES = ("qwen3_vl", "llava")


def written(*tests):
    """What pytest writes of some tests."""
    suite = ElementTree.Element("testsuite")
    for name, result in tests:
        case = ElementTree.SubElement(suite, "testcase", name=name)
        if result:
            ElementTree.SubElement(case, result)
    return suite


def test_a_cell_names_the_releases_with_which_all_of_its_tests_pass():
    beams = "test_generation_is_that_of_the_model_with_those_tokens_inserted"
    loop = "test_greedy_generation_is_a_loop_of_forwards"
    new = outcomes(
        written((f"{beams}[qwen3_vl-1]", ""), (f"{loop}[qwen3_vl-dept]", ""), (f"{beams}[llava-3]", "")), NAMES
    )
    old = outcomes(
        written(
            (f"{beams}[qwen3_vl-1]", ""), (f"{loop}[qwen3_vl-dept]", "failure"), (f"{beams}[llava-3]", ""),
            (f"{beams}[llava-1]", "error"), (f"{loop}[llava-dept]", "skipped"),
        ), NAMES,
    )  # fmt: skip
    lines = table(NAMES, {"5.15.0": old, "5.24.0": new}).splitlines()
    assert lines[0].startswith("| transformers 5.15.0, 5.24.0 | logits = tokens inserted | ")
    qwen, llava = (line.strip("| ").split(" | ") for line in lines[2:])
    column = 1 + list(CHECKS).index("greedy")
    assert (qwen[column], llava[column]) == ("5.24.0", "none")
    assert (qwen[column + 1], llava[column + 1]) == ("none", "all")


def test_every_check_is_a_test():
    source = "".join((Path(ROOT) / file).read_text() for file in (MODELS, RUNS))
    for test in (test for tests in CHECKS.values() for test in tests):
        assert f"def {test.partition('[')[0]}(" in source
