"""What ``dept-vl ui`` refuses before it listens, and how it ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest

from dept_vl.cli import main
from dept_vl.system import extras

pytest.importorskip("gradio", reason="the extra `ui` is not installed")


def refusal(capsys, *words):
    """Returns the one message of a command that ends with exit code 2."""
    assert main(["ui", *map(str, words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_folder_without_a_run(capsys, served_runs, tmp_path):
    assert f"{tmp_path}: no run here (config.yaml is missing)" in refusal(capsys, served_runs / "one", tmp_path)


def test_two_adapters_of_one_name(capsys, served_runs, tmp_path):
    shutil.copytree(served_runs / "two", tmp_path / "one")
    said = refusal(capsys, served_runs / "one", tmp_path / "one")
    assert "two adapters are called 'one'" in said
    assert "give one another name: NAME=RUN" in said


def test_an_adapter_of_another_backbone(capsys, served_runs, other_backbone):
    said = refusal(capsys, served_runs / "one", other_backbone)
    assert f"{other_backbone}: was trained on another backbone than" in said


def test_a_missing_extra(capsys, served_runs, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "ui", ("gradio-absent",))
    said = refusal(capsys, served_runs / "one")
    assert "`dept-vl ui` needs gradio-absent, which is not installed; run: pip install 'dept-vl[ui]'" in said


def test_a_port_that_is_taken(capsys, served_runs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(capsys, served_runs / "one", "--port", port)
    assert f"--host 127.0.0.1 --port {port}: cannot listen there: Address already in use" in said
    assert "--port takes another one, 0 a free one" in said


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--port", "70000"], "--port 70000: cannot listen there"),
        (["--loop.max_steps", "3"], "`dept-vl ui` does not read this setting"),
        (["--config", "x.yaml"], "a run has its own settings"),
    ],
)
def test_flags_that_make_no_page(capsys, served_runs, words, match):
    assert match in refusal(capsys, served_runs / "one", *words)


def test_help_and_refusals_need_neither_torch_nor_gradio(served_runs, tmp_path):
    code = """
import sys
from dept_vl.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
heavy = {"torch", "gradio", "starlette", "uvicorn"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else status)
"""
    for words, status in ((["--help"], 0), ([str(served_runs / "one"), str(tmp_path)], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "ui", *words], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "imported" not in done.stderr


def test_it_says_where_it_is_and_a_signal_ends_it_though_a_page_is_open(served_runs, tmp_path):
    words = [str(served_runs / "one"), "--port", "0", "--data-dir", str(tmp_path / "absent")]
    page = subprocess.Popen(
        [sys.executable, "-m", "dept_vl", "ui", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path),
             "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    try:
        found = re.fullmatch(r"asking one: open http://127.0.0.1:(\d+)\n", page.stdout.readline())
        connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", "/gradio_api/heartbeat/a")
        assert connection.getresponse().status == 200  # and goes on
        assert list(tmp_path.glob("dept-vl-ui-*"))
        page.send_signal(signal.SIGTERM)
        assert page.wait(60) == 0
        connection.close()
        assert (page.stdout.read(), page.stderr.read()) == ("stopped\n", "")
        assert not list(tmp_path.glob("dept-vl-ui-*"))
    finally:
        page.kill()
        page.wait()
