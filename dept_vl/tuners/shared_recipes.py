"""Recipes that several methods have in common. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dept_vl.tuners.settings import Recipe

TRAINER: Mapping[str, Any] = {
    "weight_decay": 0.0,
    "beta2": 0.999,
    "eps": 1e-8,
    "warmup_steps": 500,
    "warmup": "transformers",
    "max_grad_norm": 1.0,
}
"""How the codes that descend from Compacter's or HyperFormer's set up transformers' Trainer: 500 steps of warm-up.

The rest is what it did then without being asked: AdamW with betas 0.9 and 0.999, epsilon 1e-8 and no decay, linear
decay of the rate, clipping 1.0.
"""

TWENTY_EPOCHS: Mapping[str, Any] = {"epochs": 20, "eval_every_epochs": 1}
"""How long those codes train on small sets, with an evaluation after each epoch; on large ones they say otherwise."""

GLUE: Recipe = {"data": {"batch_size": 32, "loss_mean": "tokens"}, "optim": TRAINER, "loop": TWENTY_EPOCHS}
"""As Compacter's code trains what it compares on GLUE, from which LST's and ATTEMPT's codes descend.

Warm-up, epochs and an evaluation after each are in their settings (``configs`` of ``rabeehk/compacter``,
``ylsung/Ladder-Side-Tuning`` and ``AkariAsai/ATTEMPT``), and the loss is the mean over the batch's tokens. The batch is
ATTEMPT's; Compacter's and LST's have 100. Large sets (MNLI, QQP, QNLI, SST-2) have 3 epochs in Compacter's and 10 in
LST's.
"""

GLUE_SOURCE = "AkariAsai/ATTEMPT, rabeehk/compacter: seq2seq/configs"

SEVERAL_TASKS: Recipe = {
    "data": {"batch_size": 128, "loss_mean": "tokens"},
    "optim": {**TRAINER, "label_smoothing": 0.1},
    "loop": {"max_steps": 65_536, "eval_every_steps": 1_000},
    "mix": {"batches": "one-task", "temperature": 10.0},
}
"""As HyperFormer's code trains on the eight tasks of GLUE together, and Hyperdecoders' after it.

A batch is 32 rows on each of 4 GPUs in the one and 128 in the other; in HyperFormer's all are of one task, which is
drawn in proportion to its rows to the power of 1/10.
"""
