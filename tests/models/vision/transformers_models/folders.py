"""Small random vision models in folders as transformers writes them, image processor included."""

from pathlib import Path

import torch
import transformers

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}

MODELS = {
    "siglip": ("SiglipVisionModel", SIZES, "SiglipImageProcessor", SQUARE),
    "dinov2": ("Dinov2Model", {**SIZES, "image_size": 48}, "BitImageProcessor", CROPPED),
    "dinov2-registers": ("Dinov2WithRegistersModel", {**SIZES, "num_register_tokens": 3}, "BitImageProcessor", CROPPED),
    "dinov3": ("DINOv3ViTModel", {**SIZES, "num_register_tokens": 4}, "DINOv3ViTImageProcessor", SQUARE),
    "dinov3-convnext": (
        "DINOv3ConvNextModel", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, "DINOv3ViTImageProcessor",
        {"size": {"height": 64, "width": 64}},
    ),
}  # fmt: skip
"""Name -> class of the model, its shape, class of its image processor, and how that prepares pictures."""


def save_vision_model(folder: Path, name: str) -> Path:
    """Saves one of `MODELS` with drawn weights and returns the folder."""
    torch.manual_seed(0)
    model_class, shape, processor_class, processing = MODELS[name]
    model_type = getattr(transformers, model_class)
    model = model_type(model_type.config_class(**shape)).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn_like(tensor) / 5)
    model.save_pretrained(folder)
    getattr(transformers, processor_class)(**processing).save_pretrained(folder)
    return folder


def save_whole_siglip(folder: Path) -> Path:
    """Saves a SigLIP with both towers, as the hub has them, and returns the folder."""
    torch.manual_seed(0)
    text = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32,
        "max_position_embeddings": 8, "projection_size": 32, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    config = transformers.SiglipConfig(text_config=text, vision_config=dict(SIZES))
    transformers.SiglipModel(config).save_pretrained(folder)
    transformers.SiglipImageProcessor(**SQUARE).save_pretrained(folder)
    return folder
