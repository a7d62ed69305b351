"""The two tokenizers agree on random strings of every kind, and where they do not, the shortest form is found."""

import random
import shutil
import sys

import pytest

from benchmarks import ptb_fuzz
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, and there is no `java` on the PATH")


@pytest.mark.bench
@needs_java
def test_random_strings_of_every_kind_agree(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ptb_fuzz", "--number", "1500", "--show", "5", "--seed", "7"])
    ptb_fuzz.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ascii", "latin", "pieces", "captions", "characters"]
    assert all(line.endswith(" 0 differ: 0.0000%") for line in lines), lines


@needs_java
def test_a_difference_is_brought_to_its_shortest_form():
    """A final sigma behind a letter without case is the one known difference."""
    assert ptb_fuzz.shorten(["d\u3ed2\u03a3 a"]) == ["d\u3ed2\u03a3"]


def test_strings_are_of_one_line_and_a_function_of_the_seed():
    def strings(seed):
        rng = random.Random(seed)
        return [make(rng) for make in ptb_fuzz.KINDS.values() for _ in range(200)]

    assert strings(1) == strings(1) != strings(2)
    assert len(tokenize_ptb(strings(1))) == 200 * len(ptb_fuzz.KINDS)
    assert not any("\n" in text for text in strings(1))
