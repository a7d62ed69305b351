"""Small random CLIP models in open_clip's local folder layout."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}


def save_clip(folder: Path, vision: dict, *, quick_gelu: bool = False, only_visual: bool = False, **preprocess) -> Path:
    """Writes a small random CLIP as open_clip's local folders are, and returns the folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    model = open_clip.CLIP(16, dict(vision), dict(TEXT), quick_gelu=quick_gelu).eval()
    for tensor in model.visual.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:  # batch norms start as the identity: move them
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not only_visual or k.startswith("visual.")}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
    return folder
