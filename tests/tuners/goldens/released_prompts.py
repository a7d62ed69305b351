"""Runs released prompt methods on a small random T5 and writes what they compute, as goldens for ours.

    python -m tests.tuners.goldens.released_prompts adept CHECKOUT       # HungerPWAY/ADePT at c5e3629: logits
    python -m tests.tuners.goldens.released_prompts ulpt CHECKOUT        # MANGA-UOFA/ULPT at 2e5c389: logits
    python -m tests.tuners.goldens.released_prompts p-tuning CHECKOUT    # ylsung/Ladder-Side-Tuning at 1798e82: prompt

The first two have a peft of their own in the checkout, which looks up one method that transformers has since renamed;
the third is a module that needs torch alone. All run unchanged.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.models.adapter.goldens.random_adapters import CASES, random_t5
from tests.models.adapter.goldens.random_values import D_MODEL, LABELS, NUM_HEADS, NUM_LAYERS, TEXTS
from tests.models.adapter.goldens.released_forward import alias_renamed_method
from tests.tuners.goldens.random_tensors import (
    ADEPT,
    P_TUNING,
    ULPT,
    S,
    adept_tensors,
    p_tuning_tensors,
    ulpt_tensors,
)

COMMON = {
    "task_type": "SEQ_2_SEQ_LM", "token_dim": D_MODEL, "num_layers": NUM_LAYERS, "num_attention_heads": NUM_HEADS,
    "num_transformer_submodules": 1, "prompt_tuning_init": "RANDOM",
}  # fmt: skip


@torch.no_grad()
def logits(model: torch.nn.Module) -> list[list[list[float]]]:
    """Returns the logits of every text, one text a batch."""
    found = []
    for text, label in zip(TEXTS, LABELS, strict=True):
        labels = torch.tensor([[token for token in label if token != -100]])
        output = model(input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text)), labels=labels)
        found.append([[round(value, 6) for value in row] for row in output.logits[0].tolist()])
    return found


@torch.no_grad()
def adept() -> object:
    """Returns ADePT's logits, without dropout."""
    from peft import PromptTuningLoRAXConfig, get_peft_model

    config = PromptTuningLoRAXConfig(**COMMON, num_virtual_tokens=ADEPT["m"], r=ADEPT["r"], max_length=S)
    model = get_peft_model(random_t5(CASES[0]), config).eval()
    encoder, tensors = model.prompt_encoder["default"], adept_tensors()
    encoder.embedding.weight.copy_(tensors["soft_prompt"])
    for theirs, ours in (("A", "down"), ("a", "down_bias"), ("B", "up"), ("b", "up_bias")):
        getattr(encoder, f"lora_embedding_{theirs}").copy_(tensors[f"offset_{ours}"])
    return logits(model)


@torch.no_grad()
def ulpt() -> object:
    """Returns ULPT's logits."""
    from peft import PromptTuningLodimConfig, get_peft_model

    with tempfile.TemporaryDirectory() as folder:
        config = PromptTuningLodimConfig(**COMMON, num_virtual_tokens=ULPT["m"], r=ULPT["r"], output_dir=folder)
        model = get_peft_model(random_t5(CASES[0]), config).eval()
    encoder, tensors = model.prompt_encoder["default"], ulpt_tensors()
    encoder.embedding.weight.copy_(tensors["codes"])
    encoder.random_proj = tensors["projection"].expand_as(encoder.random_proj)
    encoder.base_embedding.scale.copy_(tensors["scale"])
    encoder.base_embedding.bias.copy_(tensors["shift"])
    return logits(model)


@torch.no_grad()
def p_tuning() -> object:
    """Returns the prompt that Sung et al.'s module makes."""
    from prompt.prompt_modeling import InputPrompts

    config = SimpleNamespace(prompt_len=P_TUNING["m"], input_dim=D_MODEL, mid_dim=P_TUNING["h"])
    module, tensors = InputPrompts(config), p_tuning_tensors()
    for parameter, tensor in zip(module.parameters(), tensors.values(), strict=True):
        parameter.copy_(tensor)
    return [[round(value, 6) for value in row] for row in module.get_prompt(1, torch.device("cpu"))[0].tolist()]


METHODS: dict[str, tuple[Callable[[], object], str]] = {
    "adept": (adept, ""),
    "ulpt": (ulpt, ""),
    "p-tuning": (p_tuning, "VL-T5/src"),
}


def main(name: str, checkout: Path) -> None:
    """Writes one method's goldens."""
    alias_renamed_method()
    compute, place = METHODS[name]
    sys.path.insert(0, str(checkout / place))
    Path(__file__).with_name(f"released_{name}.json").write_text(json.dumps(compute()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
