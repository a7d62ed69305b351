"""Runs the released DePT code on small random models and writes what it computes, as goldens for our forward.

    python -m tests.models.adapter.goldens.released_forward CHECKOUT

CHECKOUT is the root of a checkout of ZhengxiangShi/DePT at f0266a7 (it holds the folder ``peft``). The released code
adds all s rows of A B to a batch, so every text here is padded to s tokens. Its vendored peft looks up one method that
transformers has since renamed; the model class gets the old name as an alias and is otherwise left alone.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration

from tests.models.adapter.goldens.random_adapters import CASES, Case, random_adapter, random_t5
from tests.models.adapter.goldens.random_values import (
    D_MODEL,
    LABELS,
    MAX_NEW_TOKENS,
    NUM_HEADS,
    NUM_LAYERS,
    TEXTS,
    padded,
)

GOLDENS = Path(__file__).with_name("released_forward.json")


def alias_renamed_method() -> None:
    """Gives T5 the name that the vendored peft calls one of its methods by."""
    alias = "_prepare_encoder_decoder_kwargs_for_generation"
    if not hasattr(T5ForConditionalGeneration, alias):
        setattr(
            T5ForConditionalGeneration,
            alias,
            T5ForConditionalGeneration._prepare_text_encoder_decoder_kwargs_for_generation,
        )


def load_released(folder: Path, model: T5ForConditionalGeneration) -> torch.nn.Module:
    """Returns the released code's model with the adapter of `folder`; the checkout must be on ``sys.path``."""
    alias_renamed_method()
    from peft import PeftModelForSeq2SeqLM

    return PeftModelForSeq2SeqLM.from_pretrained(model, str(folder)).eval()


def write_adapter(case: Case, folder: Path) -> None:
    """Writes a case's random adapter as the released code saves one."""
    described = {
        "peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": "random",
        "num_virtual_tokens": case.num_virtual_tokens, "r": case.rank, "lora_alpha": 8,
        "max_length": case.max_source_length, "token_dim": D_MODEL, "hidden_size": D_MODEL, "num_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS, "num_transformer_submodules": 1, "prompt_tuning_init": "RANDOM",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(described))
    torch.save(random_adapter(case), folder / "adapter_model.bin")


@torch.no_grad()
def compute(model: torch.nn.Module, case: Case) -> dict[str, object]:
    """Returns logits, loss and greedy ids of every text, one text a batch."""
    results = {"logits": [], "loss": [], "generated": []}
    for text, label in zip(TEXTS, LABELS, strict=True):
        ids = padded((text,), case.max_source_length)
        mask = (ids != 0).long()
        labels = torch.tensor([[token for token in label if token != -100]])
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        generated = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, num_beams=1, do_sample=False
        )
        results["logits"].append([[round(value, 6) for value in row] for row in output.logits[0].tolist()])
        results["loss"].append(round(output.loss.item(), 6))
        results["generated"].append(generated[0, 1:].tolist())
    return results


def main(checkout: Path) -> None:
    """Writes the goldens."""
    sys.path.insert(0, str(checkout))
    goldens = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            write_adapter(case, Path(temporary))
            goldens[case.name] = compute(load_released(Path(temporary), random_t5(case)), case)
    lines = [f'"{name}": {json.dumps(results)}' for name, results in goldens.items()]
    GOLDENS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
