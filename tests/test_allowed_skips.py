"""A test that stops running is noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_runs():
    pass

def test_known():
    pytest.skip("needs Java, which is not here")

@pytest.mark.skipif(True, reason="it is Monday")
def test_unknown():
    pass

@pytest.mark.xfail
def test_fails():
    assert False
"""


def run(folder, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.allowed_skips", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "allowed.txt").write_text("# what CI lacks\n\nneeds Java\n")
    return tmp_path


def test_a_skip_for_a_reason_that_is_not_listed_fails_the_session_and_is_named(folder):
    done = run(folder, "-o", "allowed_skips=allowed.txt")
    assert done.returncode == 1
    assert "test_it.py::test_unknown: it is Monday" in done.stdout
    assert "test_known: needs Java" not in done.stdout
    assert "test_fails" not in done.stdout


def test_listed_reasons_pass(folder):
    (folder / "allowed.txt").write_text("needs Java\nit is Monday\n")
    assert run(folder, "-o", "allowed_skips=allowed.txt").returncode == 0


def test_a_module_that_is_skipped_whole_is_noticed(folder):
    (folder / "test_other.py").write_text("import pytest\npytest.skip('not today', allow_module_level=True)\n")
    done = run(folder, "-o", "allowed_skips=allowed.txt", "test_other.py", "test_it.py::test_runs")
    assert done.returncode == 1
    assert "test_other.py: not today" in done.stdout
