"""The speed benchmarks' command."""

import subprocess
import sys

import pytest

from benchmarks.__main__ import main


def test_a_request_that_is_refused_is_one_message(capsys):
    assert main(["startup", "--rounds", "0"]) == 2
    assert capsys.readouterr().err == "benchmarks: error: --rounds: must be at least 1, got 0\n"


def test_an_unknown_benchmark_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["speed"])
    assert "'speed' (choose from" in capsys.readouterr().err


def test_a_refusal_imports_no_torch(pytestconfig):
    code = (
        "import sys\nfrom benchmarks.__main__ import main\n"
        "main(['captions', '--rounds', '0'])\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=pytestconfig.rootpath
    )
    assert done.stdout == "False\n"
