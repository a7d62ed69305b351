"""Gradients of several processes are added up, whoever touched which tensor; so are counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import torch
from torch import nn
from dept_vl.system.processes import agree_on_largest, all_reduce_gradients, leave_launch, process_state
from dept_vl.system.processes import sum_over_processes

state = process_state()
names = ("first", "second", "both", "neither")
parameters = {name: nn.Parameter(torch.zeros(2)) for name in names}
touched = {0: ("first", "both"), 1: ("second", "both")}[state.process_index]
for name in touched:
    parameters[name].grad = torch.full((2,), 1.0 + state.process_index)
all_reduce_gradients(parameters.values())
found = {name: None if p.grad is None else p.grad.tolist() for name, p in parameters.items()}
counts = [1 + state.process_index, 5]
found |= {"sums": sum_over_processes(counts), "largest": agree_on_largest(counts)}
open(f"{sys.argv[1]}/{state.process_index}.json", "w").write(json.dumps(found))
leave_launch()
"""


@pytest.mark.distributed
def test_tensors_that_one_process_did_not_touch_count_as_zeros_there(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    expected = {"first": [1.0, 1.0], "second": [2.0, 2.0], "both": [3.0, 3.0], "neither": None}
    expected |= {"sums": [3, 10], "largest": [2, 5]}
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
