"""Small random timm models in folders as timm's ``save_for_hf`` writes them."""

from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
"""Of a vision transformer: 4 x 4 patches."""


def save_timm(folder: Path, architecture: str, **model_args) -> Path:
    """Saves a model with drawn weights, those of batch norms too, and returns the folder."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False, **model_args).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand_like(tensor) + 0.5 if name.endswith("running_var") else torch.randn_like(tensor) / 9
            )
    size = model_args.get("img_size", 64)
    save_for_hf(
        model, folder, model_args=model_args, safe_serialization=True,
        model_config={"pretrained_cfg": {"input_size": (3, size, size), "crop_pct": 0.8}},
    )  # fmt: skip
    return folder
