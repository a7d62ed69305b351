"""Visual work: a CLIP of a published shape with random weights, photographs' sizes, a VQA split over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.models.vision.open_clip.config import OpenClipConfig

_TOWERS = {
    "tiny": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "RN101": {"image_size": 224, "layers": [3, 4, 23, 3], "width": 64, "patch_size": None},
}
_TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
_WORDS = ("what", "color", "is", "the", "big", "red", "blue", "left", "of", "circle", "square")


def write_clip(folder: Path, tower: str) -> OpenClipConfig:
    """Saves a CLIP of random weights; the text tower, never used, is a small one.

    Args:
        folder: New folder.
        tower: ``"RN101"``, or ``"tiny"`` for trying out.
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    vision = _TOWERS[tower]
    model = open_clip.CLIP(16, dict(vision), dict(_TEXT)).eval()
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    described = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": _TEXT}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described), encoding="utf-8")
    return OpenClipConfig(model=str(folder), pooled_grid=6 if tower == "RN101" else None)


def write_visual_work(data_dir: Path, num_images: int, rows: int) -> None:
    """Writes JPEGs of COCO's size and a VQA task over them, `rows` of it for training.

    The pictures are smooth noise: they compress, and decode, about as photographs do.
    """
    rng = np.random.default_rng(0)
    images = data_dir / "images"
    images.mkdir(parents=True)
    for number in range(1, num_images + 1):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(images / f"{number}.jpg", quality=90)
    folder = data_dir / "vqa"
    folder.mkdir()
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    for split, size in (("train", rows), ("val", 2), ("test", 2)):
        questions = [" ".join(rng.choice(_WORDS, 6)) + "?" for _ in range(size)]
        info = SplitInfo("vqa", split, str(images))
        write_split(folder, info, schema, [_row(n, 1 + n % num_images, text) for n, text in enumerate(questions)])


def _row(number: int, image_id: int, question: str) -> dict[str, object]:
    return {
        "example_id": number,
        "image_id": image_id,
        "image": f"{image_id}.jpg",
        "question": question,
        "answer_type": "other",
        "question_type": "what is",
        "targets": ["red"],
        "target_weights": [1.0],
        "references": ["red"] * 10,
    }
