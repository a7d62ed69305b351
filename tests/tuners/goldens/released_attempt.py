"""Runs the released ATTEMPT code on a small random T5 and writes its logits, as goldens for ours.

    python -m tests.tuners.goldens.released_attempt CHECKOUT

CHECKOUT is a checkout of AkariAsai/ATTEMPT at b5121e5. Its T5 is of transformers 4.6; it runs unchanged with 4.28.1.
Texts are padded to s tokens, as its configurations pad them, and padding is inside the maximum over the text: each text
is also run alone and without padding, where the maximum is over its tokens.
"""

import json
import sys
from pathlib import Path

import torch

from tests.models.adapter.goldens.random_values import (
    D_MODEL,
    LABELS,
    NUM_HEADS,
    NUM_LAYERS,
    TEXTS,
    VOCAB_SIZE,
    padded,
    t5_values,
)
from tests.tuners.goldens.random_tensors import ATTEMPT, TASK_IDS, S, attempt_tensors

GOLDENS = Path(__file__).with_name("released_attempt.json")
T5_SEED = 1
"""Of `random_adapters.CASES[0]`."""
_NAMES = {
    "prefix_shared": "soft_prompts", "encoder.prefix_emb": "soft_prompts", "mul_prefix_emb": "sources",
    "encoder.mul_prefix_emb": "sources", "encoder.attn_W_down.weight": "attention_down.weight",
    "encoder.attn_W_up.weight": "attention_up.weight", "encoder.layer_norm.weight": "attention_norm.weight",
    "encoder.layer_norm.bias": "attention_norm.bias",
}  # fmt: skip
"""A tensor of the released model to ours."""


def released_model(num_tasks: int) -> torch.nn.Module:
    """Returns the released model with random weights; the checkout must be on ``sys.path``."""
    from adapters import AdapterConfig
    from third_party.models.t5 import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCAB_SIZE, d_model=D_MODEL, d_kv=8, d_ff=24, num_layers=NUM_LAYERS, num_decoder_layers=NUM_LAYERS,
        num_heads=NUM_HEADS, relative_attention_num_buckets=8, decoder_start_token_id=0, prefix_tuning=True,
    )  # fmt: skip
    own = {
        "attn_prefix_tuning": True, "attn_method": "sub", "ignore_target": False, "shared_attn": num_tasks > 1,
        "prefix_num": ATTEMPT["sources"], "num_target": num_tasks, "temperature": ATTEMPT["temperature"],
        "learned_temperature": False,
    }  # fmt: skip
    for name, value in own.items():
        setattr(config, name, value)
    adapter_config = AdapterConfig()
    adapter_config.prefix_dim = ATTEMPT["m"]
    model = T5ForConditionalGeneration(config, adapter_config=adapter_config)
    # The width of 100 is fixed in the released code; everything else is as it is built.
    model.encoder.attn_W_down = torch.nn.Linear(D_MODEL, ATTEMPT["width"], bias=False)
    model.encoder.attn_W_up = torch.nn.Linear(ATTEMPT["width"], D_MODEL, bias=False)
    tensors = attempt_tensors(num_tasks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in _NAMES:
                value = tensors[_NAMES[name]]
                parameter.copy_(value[0] if parameter.dim() < value.dim() else value)
            else:
                parameter.copy_(t5_values(name, tuple(parameter.shape), T5_SEED))
    return model.eval()


@torch.no_grad()
def compute(model: torch.nn.Module, *, length: int | None, has_tasks: bool) -> list[list[list[float]]]:
    """Returns the logits of every text, one text a batch, padded to `length` tokens or not at all."""
    found = []
    for text, label, task in zip(TEXTS, LABELS, TASK_IDS, strict=True):
        ids = padded((text,), length or len(text))
        labels = torch.tensor([[token for token in label if token != -100]])
        output = model(
            input_ids=ids,
            attention_mask=(ids != 0).long(),
            labels=labels,
            task_ids=torch.tensor([task]) if has_tasks else None,
        )
        found.append([[round(value, 6) for value in row] for row in output.logits[0].tolist()])
    return found


def main(checkout: Path) -> None:
    """Writes the goldens."""
    sys.path.insert(0, str(checkout / "attempt"))
    one, several = released_model(1), released_model(ATTEMPT["tasks"])
    goldens = {
        "one task, without padding": compute(one, length=None, has_tasks=False),
        "one task, padded": compute(one, length=S, has_tasks=False),
        "several tasks, without padding": compute(several, length=None, has_tasks=True),
    }
    lines = [f'"{name}": {json.dumps(results)}' for name, results in goldens.items()]
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
