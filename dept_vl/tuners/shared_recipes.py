"""Recipes that several methods have in common. No torch."""

from __future__ import annotations

from dept_vl.tuners.settings import Recipe

GLUE: Recipe = {
    "data": {"batch_size": 32, "loss_mean": "tokens"},
    "optim": {
        "weight_decay": 0.0,
        "beta2": 0.999,
        "eps": 1e-8,
        "warmup_steps": 500,
        "warmup": "transformers",
        "max_grad_norm": 1.0,
    },
    "loop": {"epochs": 20, "eval_every_epochs": 1},
}
"""As Compacter's code trains what it compares on GLUE, from which LST's and ATTEMPT's codes descend.

Warm-up, epochs and an evaluation after each are in their settings (``configs`` of ``rabeehk/compacter``,
``ylsung/Ladder-Side-Tuning`` and ``AkariAsai/ATTEMPT``); the rest is what transformers' Trainer did then: AdamW with
betas 0.9 and 0.999, epsilon 1e-8 and no decay, linear decay of the rate, clipping 1.0, the mean over the batch's tokens
as loss. The batch is ATTEMPT's; Compacter's and LST's have 100. The epochs are those of small sets; large ones (MNLI,
QQP, QNLI, SST-2) have 3 in Compacter's and 10 in LST's.
"""

GLUE_SOURCE = "AkariAsai/ATTEMPT, rabeehk/compacter: seq2seq/configs"
