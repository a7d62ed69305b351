"""Runs the released LST code on a tiny T5 and stores what it computes, in ``lst.safetensors``.

The code is a checkout of ylsung/Ladder-Side-Tuning, commit 1798e82, and needs an old transformers (run with 4.30.2,
torch 2.14.1): ``python make_lst_goldens.py CHECKOUT``. What is run of it: ``calculate_the_importance_label``,
``pruning_v2`` and the forward pass of ``modeling_side_t5.py``. Its generation is not (it imports modules that 4.30 no
longer has), and stands here as an empty class.
"""

import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration  # asks for `datasets` itself, so before there is none

CHECKOUT = Path(sys.argv[1])
for folder in (CHECKOUT, CHECKOUT / "Torch-Pruning"):
    sys.path.insert(0, str(folder))
sys.modules["datasets"] = types.ModuleType("datasets")  # imported, and used by nothing that is run here
generation = types.ModuleType("seq2seq.third_party.generation_utils")
generation.GenerationMixin = type("GenerationMixin", (), {})
sys.modules[generation.__name__] = generation

from seq2seq.pruning.fisher import calculate_the_importance_label  # noqa: E402
from seq2seq.pruning.pruning_methods import pruning_v2  # noqa: E402
from seq2seq.third_party.models.t5.configuration_t5 import T5Config as SideConfig  # noqa: E402
from seq2seq.third_party.models.t5.modeling_side_t5 import T5ForConditionalGeneration as SideT5  # noqa: E402

SHAPE = {
    "vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 2,
    "relative_attention_num_buckets": 8, "dropout_rate": 0.1, "decoder_start_token_id": 0,
}  # fmt: skip
REDUCTION = 2
ENCODER_LAYERS, DECODER_LAYERS = [1, 2], [0, 2]
ROWS = 12


def backbone() -> T5ForConditionalGeneration:
    """A T5 whose positions and norms matter."""
    torch.manual_seed(0)
    t5 = T5ForConditionalGeneration(T5Config(**SHAPE))
    for stack in (t5.encoder, t5.decoder):
        torch.nn.init.normal_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=1.5)
    for name, parameter in t5.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return t5.eval()


def rows() -> list[dict[str, torch.Tensor]]:
    """Training rows of one example each."""
    generator = torch.Generator().manual_seed(1)
    lengths = [(3 + number % 5, 1 + number % 3) for number in range(ROWS)]
    draw = {"low": 2, "high": 32, "generator": generator}
    return [
        {"input_ids": torch.randint(size=(1, source), **draw), "labels": torch.randint(size=(1, target), **draw)}
        for source, target in lengths
    ]


def side_model(t5: T5ForConditionalGeneration) -> SideT5:
    """Their model, its gates and the maps between the widths moved from their start."""
    config = SideConfig(
        **SHAPE, train_task_adapters=False, prefix_tuning=False, attn_prefix_tuning=False, lambda_distill=0,
        lambda_label=1, merge_last=False, add_bias_sampling=True, use_gate="learnable", gate_alpha=0.0, gate_T=0.1,
        add_residual_after=False, encoder_side_layers=ENCODER_LAYERS, decoder_side_layers=DECODER_LAYERS,
    )  # fmt: skip
    adapter = types.SimpleNamespace(
        task_reduction_factor=REDUCTION, bitfit=False, task_adapter_layers_encoder=None,
        task_adapter_layers_decoder=None, task_adapter_in_decoder=True, train_task_adapters=False,
        hypercomplex_adapters=False,
    )  # fmt: skip
    model = SideT5(config, adapter_config=adapter)
    missing = model.load_state_dict(t5.state_dict(), strict=False).missing_keys
    assert all("side" in name for name in missing), missing
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name or "sample" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.1 if "gate" in name else 0.3))
    return model.eval()


def load_pruned(model: SideT5, pruned: dict[str, torch.Tensor], t5: T5ForConditionalGeneration) -> None:
    """What ``run_seq2seq.py`` does with ``load_side_pretrained_weights: fisher-v2``."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parts = name.split(".")
            if "side_block" in name and "relative_attention_bias" in name:
                parts[1:3] = ["block", "0"]
                parameter.copy_(t5.state_dict()[".".join(parts)])
            elif "side_block" in name:
                parts[1] = "block"
                parameter.copy_(pruned[".".join(parts)])
            elif "final_side_layer_norm" in name:
                parameter.copy_(pruned[name.replace("final_side_", "final_")])


def main() -> None:
    """Writes the file."""
    t5, examples = backbone(), rows()
    weights = {name: value.clone() for name, value in t5.state_dict().items()}
    squares = calculate_the_importance_label(t5, [dict(row) for row in examples], ROWS, "cpu", "square")
    squares = {name: value.clone() for name, value in squares.items()}
    pruned = pruning_v2(backbone(), REDUCTION, importance_measure=dict(squares))
    by_magnitude = pruning_v2(backbone(), REDUCTION)
    side = side_model(t5)
    load_pruned(side, pruned, t5)
    ids = torch.tensor([[5, 9, 3, 21, 8, 1], [7, 4, 1, 0, 0, 0], [30, 1, 0, 0, 0, 0]])
    labels = torch.tensor([[4, 9, 1, -100], [6, 1, -100, -100], [8, 8, 12, 1]])
    with torch.no_grad():
        logits = side(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).logits
    tensors = {f"t5.{name}": value for name, value in weights.items()}
    tensors |= {f"squares.{name}": value for name, value in squares.items()}
    kinds = ("block.", "final_layer_norm")
    for key, state in (("fisher", pruned), ("magnitude", by_magnitude)):
        tensors |= {f"{key}.{n}": v for n, v in state.items() if any(kind in n for kind in kinds)}
    tensors |= {f"side.{name}": value for name, value in side.state_dict().items() if "side" in name}
    tensors |= {f"rows.{i}.{key}": row[key] for i, row in enumerate(examples) for key in ("input_ids", "labels")}
    tensors |= {"ids": ids, "labels": labels, "logits": logits}
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, FILE)


FILE = str(Path(__file__).with_name("lst.safetensors"))

if __name__ == "__main__":
    main()
