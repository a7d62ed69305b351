"""What ``dept-vl serve`` refuses before it listens, and how it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.startup import RunReader, read_runs
from dept_vl.system import extras
from tests.api.saved_runs import save_run
from tests.serving.conftest import ask, no_check, numbers, png, until

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

QUESTION = "what color is the ball ?"


def refusal(capsys, *words):
    """Returns the one message of a command that ends with exit code 2."""
    assert main(["serve", *map(str, words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_two_adapters_of_one_name(capsys, served_runs, tmp_path):
    shutil.copytree(served_runs / "two", tmp_path / "one")
    said = refusal(capsys, served_runs / "one", tmp_path / "one")
    both = f"{served_runs / 'one'} and {tmp_path / 'one'}"
    assert said == f"dept-vl: error: two adapters are called 'one', {both}; give one another name: NAME=RUN"
    found = read_runs([str(served_runs / "one"), f"other={tmp_path / 'one'}"], {}, no_check)
    assert [run.name for run in found] == ["one", "other"]


def test_an_adapter_of_another_backbone(capsys, served_runs, other_backbone):
    said = refusal(capsys, served_runs / "one", other_backbone)
    assert f"{other_backbone}: was trained on another backbone than {served_runs / 'one'} (weights_sha256 " in said
    assert "serve it with another one" in said


def test_a_folder_that_is_no_run(capsys, served_runs, tmp_path):
    assert f"{tmp_path}: no run here (config.yaml is missing)" in refusal(capsys, tmp_path)
    assert "no run here" in refusal(capsys, served_runs / "one", served_runs / "absent")


def test_a_run_without_its_adapter(capsys, served_runs, tmp_path):
    run = shutil.copytree(served_runs / "one", tmp_path / "run")
    (run / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors is missing" in refusal(capsys, run)


def test_a_run_of_several_tasks(capsys, t5_folder, tmp_path):
    run = save_run(tmp_path / "mix", "rte+cola", t5_folder)
    assert "was trained on rte, cola together, and a server answers with runs of one task" in refusal(capsys, run)


def test_a_missing_extra(capsys, served_runs, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "serve", ("starlette-absent",))
    said = refusal(capsys, served_runs / "one")
    assert "`dept-vl serve` needs starlette-absent, which is not installed; run: pip install 'dept-vl[serve]'" in said


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--max-batch", "0"], "--max-batch: should be a number from 1 on, got 0"),
        (["--max-wait-ms", "nan"], "--max-wait-ms: should be a number from 0 on"),
        (["--max-body-mib", "0"], "--max-body-mib: should be a number above 0"),
        (["--allow-loading", "absent"], "--allow-loading: absent is no folder"),
        (["--host", "203.0.113.1"], "--host 203.0.113.1 --port 8000: cannot listen there"),
        (["--port", "70000"], "--port 70000: cannot listen there"),
        (["--data.dir", "x"], "`dept-vl serve` does not read this setting"),
        (["--config", "x.yaml"], "a run has its own settings"),
    ],
)
def test_flags_that_make_no_server(capsys, served_runs, words, match):
    assert match in refusal(capsys, served_runs / "one", *words)


def test_names(served_runs, tmp_path):
    reader = RunReader({}, no_check)
    for name in ("", "a/b", ".hidden", "a b", "x" * 129):
        with pytest.raises(ConfigError, match="is no name for an adapter"):
            reader.read(name, served_runs / "one")
    odd = shutil.copytree(served_runs / "one", tmp_path / "lr=0.3")
    (run,) = read_runs([f"fast={odd}"], {}, no_check)
    assert (run.name, run.folder) == ("fast", odd)
    with pytest.raises(ConfigError, match=r"'lr=0.3' is no name"):
        read_runs([str(odd)], {}, no_check)


def test_the_first_ones_backbone_stays_that_of_all(served_runs, other_backbone):
    (first,) = read_runs([str(served_runs / "one")], {}, no_check)
    with pytest.raises(CheckpointError, match="another backbone"):
        RunReader({}, no_check, first).read("other", other_backbone)


def test_a_server_of_no_rows_is_refused():
    ServeLimits().check()
    with pytest.raises(ConfigError, match="--max-queue"):
        ServeLimits(max_queue=0).check()


def test_help_and_refusals_need_no_torch(served_runs, tmp_path):
    code = """
import sys
from dept_vl.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
heavy = {"torch", "starlette", "uvicorn"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else status)
"""
    for words, status in ((["--help"], 0), ([str(served_runs / "one"), str(tmp_path)], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "serve", *words], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "imported" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_0(served_runs, number):
    words = [str(served_runs / "one"), str(served_runs / "two"), "--port", "0", "--max-wait-ms", "1000"]
    server = subprocess.Popen(
        [sys.executable, "-m", "dept_vl", "serve", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    errors = []
    reading = threading.Thread(target=lambda: errors.append(server.stderr.read()))
    reading.start()
    try:
        line = server.stdout.readline()
        found = re.fullmatch(r"serving one, two at http://127.0.0.1:(\d+)/v1\n", line)
        assert found, line
        port = int(found[1])
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask, port, name, QUESTION, png()) for name in ("one", "two")]
            until(lambda: numbers(port)["dept_vl_queue_length"] == 2)
            server.send_signal(number)
            assert [one.result()[0] for one in asked] == [200, 200]
        assert server.wait(20) == 0
        assert server.stdout.read() == "stopped: everything that waited is answered\n"
    finally:
        server.kill()
        server.wait()
        reading.join()
    assert errors == [""]
