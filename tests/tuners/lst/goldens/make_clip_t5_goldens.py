"""Runs the released LST code of CLIP-T5 on the T5 of ``lst.safetensors``; stores it in ``clip_t5.safetensors``.

As ``make_lst_goldens.py``, whose file must be there: ``python make_clip_t5_goldens.py CHECKOUT``. What is run is the
forward pass of ``VL-T5/src/modeling_t5.py``. Its visual embedding is left out: visual tokens come in at d_model.
"""

import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import T5Config

HERE = Path(__file__).parent
SOURCE = Path(sys.argv[1]) / "VL-T5" / "src"
sys.path.insert(0, str(SOURCE))
bart = types.ModuleType("modeling_bart")  # the same for BART; three of its classes are imported and not used here
bart.Downsample = bart.SparseSample = bart.OneDDownsample = nn.Identity
sys.modules["modeling_bart"] = bart
generation = types.ModuleType("my_transformers.generation_utils")  # needs modules that transformers no longer has
generation.SideGenerationMixin = type("SideGenerationMixin", (), {})
sys.modules[generation.__name__] = generation

from modeling_t5 import VLT5  # noqa: E402
from side_transformers import SideConfig  # noqa: E402


class GivenTokens(nn.Module):
    """Returns visual tokens as they come."""

    def forward(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
        """Takes (batch, visual, d_model)."""
        return tokens


def settings() -> T5Config:
    """The shape of the T5, and what their classes ask of a configuration."""
    config = T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_decoder_layers=3, num_heads=2,
        relative_attention_num_buckets=8, dropout_rate=0.1, decoder_start_token_id=0,
    )  # fmt: skip
    config.side_config = SideConfig()
    config.side_config.task_reduction_factor = 2
    own = {
        "feat_dim": 4, "pos_dim": 4, "n_images": 2, "use_vis_order_embedding": True, "n_boxes": 36,
        "additional_visual_embedding_layers": 0, "use_vis_layer_norm": True, "individual_vis_layer_norm": True,
        "share_vis_lang_layer_norm": False, "downsample": False, "sparse_sample": False, "oneddownsample": False,
        "use_lm_head_adapter": False, "use_hyperformer": False, "use_adapter": False, "use_compacter": False,
        "use_lradapter": False, "use_side_transformers": True, "adapter_config": None, "lora_config": None,
        "encoder_prompt_config": None, "decoder_prompt_config": None, "classifier": False,
    }  # fmt: skip
    for name, value in own.items():
        setattr(config, name, value)
    return config


def main() -> None:
    """Writes the file."""
    weights = {
        name.removeprefix("t5."): value
        for name, value in load_file(HERE / "lst.safetensors").items()
        if name.startswith("t5.")
    }
    torch.manual_seed(3)
    model = VLT5(settings())
    model.encoder.visual_embedding = GivenTokens()
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all("side" in name for name in missing), missing
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name or ("norm" in name and "side" in name) or ("relative" in name and "side" in name):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + ("norm" in name))
    model.eval()
    ids = torch.tensor([[5, 9, 3, 21, 8, 1], [7, 4, 1, 0, 0, 0], [30, 1, 0, 0, 0, 0]])
    labels = torch.tensor([[4, 9, 1, -100], [6, 1, -100, -100], [8, 8, 12, 1]])
    visual = torch.randn(3, 5, 16, generator=generator)
    mask = (ids != 0).float()
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, vis_inputs=(visual, None), labels=labels, return_dict=True)
    tensors = {f"side.{name}": value for name, value in model.state_dict().items() if "side" in name}
    tensors |= {"ids": ids, "labels": labels, "visual": visual, "logits": output.logits}
    file = str(HERE / "clip_t5.safetensors")
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, file)


if __name__ == "__main__":
    main()
