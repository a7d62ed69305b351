import os
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import Reference, check_available, evaluate
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, and there is no `java` on the PATH")


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def fake_java(monkeypatch, tmp_path, script):
    """Puts a program `java` in the place of the real one."""
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@needs_java
def test_one_line_for_each_caption_whatever_is_in_it():
    captions = ["A man's dog.", "", "a\r\nb\u2028c\x0bd", "  ", "café “x”", "e"]
    assert tokenize_stanford(captions) == ["a man 's dog", "", "a b c d", "", "café x", "e"]
    assert tokenize_stanford([]) == []


@needs_java
def test_nothing_is_written_into_the_installed_package():
    folder = Path(str(files("pycocoevalcap") / "tokenizer"))
    before = sorted(folder.iterdir())
    tokenize_stanford(["a cat"])
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("no_java")
def test_without_java_the_message_says_how_to_install_it():
    with pytest.raises(ConfigError, match=r"Stanford tokenizer needs Java.*apt-get install .*or use tokenizer \"ptb\""):
        tokenize_stanford(["a"])


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize("metric", ["meteor", "spice"])
def test_metrics_that_need_java_say_how_to_install_it(metric):
    with pytest.raises(
        ConfigError, match=rf"{metric.upper()} needs Java.*conda install .*or leave {metric.upper()} out"
    ):
        evaluate([metric], ["a"], [Reference(["a"])])
    with pytest.raises(ConfigError, match="needs Java"):
        check_available(["cider", metric])


@pytest.mark.usefixtures("no_java")
def test_availability_asks_for_java_only_where_it_is_used():
    check_available(["cider", "bleu", "rouge-l", "vqa-accuracy"])
    check_available(["vqa-accuracy"], "stanford")
    with pytest.raises(ConfigError, match="Stanford tokenizer needs Java"):
        check_available(["cider"], "stanford")


def test_a_java_that_fails_is_an_error_with_its_message(monkeypatch, tmp_path):
    fake_java(monkeypatch, tmp_path, "cat >/dev/null; echo no such luck >&2; exit 3")
    with pytest.raises(ConfigError, match="failed with code 3: no such luck"):
        tokenize_stanford(["a"])


def test_a_java_that_loses_lines_is_an_error(monkeypatch, tmp_path):
    fake_java(monkeypatch, tmp_path, "cat >/dev/null; echo a")
    with pytest.raises(DataError, match="returned 2 lines for 3 captions"):
        tokenize_stanford(["a", "b", "c"])


def test_a_meteor_that_breaks_off_is_an_error(monkeypatch, tmp_path):
    fake_java(monkeypatch, tmp_path, "read line; exit 1")
    with pytest.raises(ConfigError, match="METEOR's Java program failed"):
        evaluate(["meteor"], ["a cat"], [Reference(["a dog"])])
