"""docs/extending.md, tried as it stands: files and diffs are laid into a copy of the packages, commands are run there.

A block whose first line is ``# PATH`` is a new file, without that line. As ``diff`` it changes a file that is there:
the lines that begin with a blank or ``-`` stand in it exactly once, and those that begin with a blank or ``+`` take
their place; ``@@`` parts two places. An ``sh`` block holds ``dept-vl`` and ``python FILE`` commands, one a line or
joined by a backslash; one process runs all of them in the page's order, so that torch is imported once.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block: its language, the file that its first line names (none for commands), and the other lines."""

    language: str
    path: str | None
    text: str


def read_blocks(page: str) -> list[Block]:
    blocks = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        first, _, rest = text.partition("\n")
        blocks.append(
            Block(language, None, text) if language == "sh" else Block(language, first.removeprefix("# "), rest)
        )
    return blocks


def change(text: str, diff: str) -> str:
    """Returns `text` with every place of a diff changed."""
    for place in diff.split("@@\n"):
        lines = place.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(before) == 1, f"these lines stand {text.count(before)} times, not once:\n{before}"
        text = text.replace(before, after)
    return text


BLOCKS = read_blocks(PAGE)
COMMANDS = [
    " ".join(line.split())
    for block in BLOCKS
    if block.language == "sh"
    for line in block.text.replace("\\\n", " ").splitlines()
]

RUN = """
import json, runpy, sys
from pathlib import Path
from dept_vl.cli import main

codes = {}
for command, (program, *words) in json.loads(sys.argv[1]).items():
    print("$", command, flush=True)
    if program == "dept-vl":
        codes[command] = main(words)
    else:
        runpy.run_path(*words)
        codes[command] = 0
    Path("codes.json").write_text(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The packages with everything the page adds."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("dept_vl", "data_prep"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("assets"))
    (folder / "dept_vl" / "assets").symlink_to(ROOT / "dept_vl" / "assets")
    for block in BLOCKS:
        if block.path is not None:
            path = folder / block.path
            assert path.is_file() == (block.language == "diff"), block.path
            path.parent.mkdir(exist_ok=True)
            path.write_text(change(path.read_text(), block.text) if block.language == "diff" else block.text)
    return folder


@pytest.fixture(scope="module")
def outcome(copy) -> tuple[dict[str, int], str]:
    """The exit code of each command, and what all of them printed."""
    commands = {command: shlex.split(command) for command in COMMANDS}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "DEPT_VL_CACHE": str(copy / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return json.loads((copy / "codes.json").read_text()), done.stdout


def test_the_page_has_files_and_commands():
    assert {block.language for block in BLOCKS} == {"python", "diff", "text", "sh"}
    assert all(command.startswith(("dept-vl ", "python ")) for command in COMMANDS)


def test_a_diff_changes_its_places_and_fails_where_the_file_has_moved_on():
    text = "import a\n\nNAMES = (\n    a,\n)\n"
    diff = " import a\n+import b\n@@\n-    a,\n+    b,\n"
    assert change(text, diff) == "import a\nimport b\n\nNAMES = (\n    b,\n)\n"
    with pytest.raises(AssertionError, match=r"stand 0 times, not once:\s+import c"):
        change(text, " import c\n+import d\n")


@pytest.mark.whole
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_succeeds(outcome, command):
    codes, printed = outcome
    assert codes.get(command) == 0, printed


@pytest.mark.whole
def test_scores_are_printed_as_the_page_declares_them(outcome):
    assert re.search(r"word_recall +\d+\.\d  x 100, as papers print it", outcome[1])


def test_the_examples_follow_the_house_rules(copy):
    files = [block.path for block in BLOCKS if block.path is not None and block.path.endswith(".py")]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", *files],
            cwd=copy,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
