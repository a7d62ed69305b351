"""How large DePT's prompt and A B are beside the frozen embeddings after as many steps, on backbones of several sizes.

    python -m benchmarks.update_sizes --smollm2 SMOLLM2 --data-dir DATA --work FOLDER [--steps 60]

SMOLLM2 is a folder of SmolLM2-135M-Instruct, DATA what `dept-vl prepare` wrote of SST-2. The packaged T5 and SmolLM2
have trained weights; GPT-2 and T5-base have their published shapes and random ones: of them only sizes say anything.
Each is trained with the default rates and with the paper's, 0.3 and 5e-4. The last result is in docs/method.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import dept_vl
from benchmarks.speed.workload import shape, write_backbone
from dept_vl.models.demo import DEMO

RATES: Mapping[str, Mapping[str, float]] = {"default": {}, "paper": {"tuner.lr": 0.3, "tuner.lowrank_lr": 5e-4}}


def main(arguments: list[str] | None = None) -> None:
    """Trains each backbone with both pairs of rates and prints a row of multiples of the embeddings' size."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.update_sizes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--smollm2", required=True, type=Path)
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args(arguments)
    backbones = {
        "the packaged T5": DEMO,
        "SmolLM2-135M-Instruct": str(options.smollm2),
        "GPT-2, random": str(write_gpt2(options.work / "gpt2", options.smollm2)),
        "T5-base, random": str(write_backbone(options.work / "t5-base", shape("base"))),
    }
    print("| backbone | embeddings | rates | prompt | A B |")
    for name, backbone in backbones.items():
        for rates, given in RATES.items():
            run = options.work / f"{name.split(',')[0].replace(' ', '-')}-{rates}"
            size, prompt, update = train(backbone, options.data_dir, run, options.steps, given)
            print(f"| {name} | {size:.3g} | {rates} | {prompt:.2g} | {update:.2g} |", flush=True)


def train(
    backbone: str, data_dir: Path, run: Path, steps: int, rates: Mapping[str, float], task: str = "sst2"
) -> tuple[float, float, float]:
    """Returns the embeddings' root mean square at the end, and what prompt and A B have, as multiples of it."""
    settings = {
        "task": task, "tuner.name": "dept", "tuner.budget_tokens": 20, "tuner.allow_nearest": True, **rates,
        "model.backbone": backbone, "model.dtype": "bfloat16", "data.dir": str(data_dir), "data.batch_size": 8,
        "data.max_source_length": 64, "loop.max_steps": steps, "loop.eval_every_steps": steps, "loop.eval_rows": 8,
        "loop.trackers": [], "output_dir": str(run),
    }  # fmt: skip
    dept_vl.train(settings, overwrite=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "rms/embeddings" in line][-1]
    return last["rms/embeddings"], last["rms_share/prompt"], last.get("rms_share/update", 0.0)


def write_gpt2(folder: Path, tokenizer: Path) -> Path:
    """Writes GPT-2's shape with random weights as transformers draws them, and another model's tokenizer."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(words), bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id)
    GPT2LMHeadModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
