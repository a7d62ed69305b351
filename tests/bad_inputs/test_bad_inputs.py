"""Every bad input ends in exit code 2 and one message that names file and place; nothing is left behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from dept_vl.cli import main
from tests.bad_inputs import (
    adapters,
    backbones,
    caches,
    checkpoints,
    configs,
    folding,
    images,
    manifests,
    official,
    other_runs,
    own_rows,
    predictions,
    raw_json,
    released,
    text_files,
)
from tests.bad_inputs.case import Base, Case
from tests.data_prep.raw_files import write_raw
from tests.data_prep.text_rows import cola_folder

SECONDS = 10
"""Limit of a case; the slowest takes about one."""

_MODULES = (
    configs, raw_json, text_files, manifests, images, caches, checkpoints, adapters, predictions, released, backbones,
    own_rows, official, other_runs, folding,
)  # fmt: skip
CASES: list[Case] = [case for module in _MODULES for case in module.CASES]

_TINY = (
    "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
    "--data.batch_size", "4", "--loop.max_steps", "2", "--loop.eval_every_steps", "2", "--loop.save_every_steps", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory, t5_folder, tiny_data) -> Base:
    root = tmp_path_factory.mktemp("base")
    write_raw(root / "raw")
    cola_folder(root / "cola")
    common = ["--model.backbone", t5_folder, *_TINY]
    for command in (
        ["train", "--task", "vqa", "--data-dir", tiny_data, "--output-dir", root / "vqa_run", *common],
        ["prepare", "--task", "cola", "--raw", root / "cola", "--out", root / "text", "--subset"],
        ["train", "--task", "cola", "--data-dir", root / "text", "--output-dir", root / "text_run", *common],
    ):
        assert main([str(word) for word in command]) == 0
    return Base(root / "raw", tiny_data, t5_folder, root / "vqa_run", root / "cola", root / "text", root / "text_run")


def snapshot(folder: Path, may_leave: tuple[str, ...] = ()) -> dict[str, tuple]:
    """Returns what lies in a folder: kind, size and time of change of every name."""
    found = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in may_leave]
        for name in [*folders, *names]:
            status = os.lstat(os.path.join(parent, name))
            is_folder = os.path.isdir(os.path.join(parent, name))
            if name not in may_leave and not name.endswith(".in-use"):  # an empty lock file stays, see system.locks
                path = os.path.relpath(os.path.join(parent, name), folder)
                found[path] = (status.st_mode, 0 if is_folder else (status.st_size, status.st_mtime_ns))
    return found


class TooSlowError(BaseException):
    """Nothing may catch this one; a TimeoutError is an OSError to the command line."""


def _too_slow(*_):
    raise TooSlowError(f"more than {SECONDS} s")


def run(words) -> int:
    """Runs a command within the time limit and returns its exit code."""
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:  # argparse's way to refuse
        return int(stop.code)
    finally:
        signal.alarm(0)


def test_the_corpus_is_as_large_as_promised_and_its_names_are_unique():
    names = [case.name for case in CASES]
    assert len(names) >= 150
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_is_refused_with_one_message_and_leaves_nothing(case, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = case.make(tmp_path, base)
    before = snapshot(tmp_path)
    started = time.perf_counter()
    assert run(words) == 2
    assert time.perf_counter() - started < SECONDS
    printed = capsys.readouterr().err
    assert printed.count("error: ") >= 1
    assert len([line for line in printed.splitlines() if line.startswith("dept-vl") and ": error: " in line]) == 1
    assert "Traceback" not in printed
    message = printed[printed.index("error: ") :]
    assert len(message) < 4000
    for words in case.says:
        assert words in message
    assert {path: kind for path, kind in snapshot(tmp_path, case.may_leave).items() if path not in before} == {}
    assert before.items() <= snapshot(tmp_path).items()
