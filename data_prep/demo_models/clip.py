"""Trains the demo CLIP: open_clip's own CLIP class, small, on drawn scenes and their detailed captions.

Contrastive image-caption training as in CLIP. Each batch holds groups of near-identical scenes (one attribute or
place changed), so that telling the right caption from its neighbours needs every attribute of every object; the first
scenes have one object, so that shapes are learnt early. The image tower averages its patch tokens: what a caption says
must therefore be in the tokens themselves, which is what the grid features are read from.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast

from data_prep.demo_models.optimizer import build_optimizer, take_step
from data_prep.demo_models.tokenizer import EOS_ID, PAD_ID
from data_prep.demo_world.drawing import IMAGE_SIZE, draw_image
from data_prep.demo_world.scene import MAX_OBJECTS, Scene, draw_scene, draw_variant

logger = logging.getLogger(__name__)

PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.25, 0.25, 0.25)
ATTRIBUTES = ("size", "color", "shape", "position")
CONTEXT_LENGTH = 28
"""Tokens of the longest detailed caption: a background and five objects, and ``</s>``."""


@dataclass(frozen=True)
class ClipRecipe:
    """What the demo CLIP's training depends on; the defaults are the shipped model's."""

    num_steps: int = 2000
    num_groups: int = 16  # groups of variants per batch
    group_size: int = 8  # variants of one scene, itself included
    relative_lr: float = 2e-2
    vector_lr: float = 1e-3
    warmup_steps: int = 100
    told_share: float = 0.75  # chance that a group's captions tell an attribute
    decorrelation: float = 0.03  # weight of the patch features' correlation in the loss
    seed: int = 1


def model_config(vocab_size: int) -> dict[str, Any]:
    """The ``model_cfg`` of open_clip: a ViT of 4 layers on 9 patches of 32 x 32 pixels, and a text tower of 2."""
    return {
        "embed_dim": 256,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "patch_size": 32,
            "width": 192,
            "layers": 4,
            "head_width": 64,
            "mlp_ratio": 3.0,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 3.0,
            "pool_type": "eos",
            "pad_id": PAD_ID,
            "eos_id": EOS_ID,
        },
    }


def detailed_caption(scene: Scene, rng: random.Random, told: Collection[str] = ATTRIBUTES) -> str:
    """A caption that names every object, in random order, by the attributes `told`."""
    items = [" ".join(getattr(item, name) for name in ATTRIBUTES if name in told) for item in scene.objects]
    rng.shuffle(items)
    return " ".join([scene.background, "background", *items])


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Tokenises to the text tower's fixed length: (len(texts), CONTEXT_LENGTH), int64."""
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt")
    ids: Tensor = encoded["input_ids"]
    return ids


def to_pixels(images: np.ndarray) -> Tensor:
    """Normalises RGB images in 0..255 (batch, height, width, 3) to the tower's input (batch, 3, height, width)."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


def _max_objects(progress: float, rng: random.Random) -> int:
    """The most objects of the next scene: one at first, so that shapes are learnt early, any number later."""
    if progress < 0.15 or rng.random() < 0.25:
        return 1
    return 2 if progress < 0.25 else MAX_OBJECTS


def _told_attributes(recipe: ClipRecipe, rng: random.Random) -> list[str]:
    """What the captions of one group tell: two attributes at least."""
    while True:
        told = [name for name in ATTRIBUTES if rng.random() < recipe.told_share]
        if len(told) > 1:
            return told


def _batches(recipe: ClipRecipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (pixels, token ids) of groups of distinct scenes of the pretraining split."""
    rng = random.Random(recipe.seed)
    for step in itertools.count():
        scenes: dict[str, Scene] = {}
        texts: dict[str, str] = {}
        for _ in range(recipe.num_groups):
            base = draw_scene(rng, "pretrain", _max_objects(step / recipe.num_steps, rng))
            group = {base.key: base}
            while len(group) < recipe.group_size:
                variant = draw_variant(rng, rng.choice(list(group.values())))
                if variant.split == "pretrain":
                    group.setdefault(variant.key, variant)
            scenes.update(group)
            told = _told_attributes(recipe, rng)
            texts.update({key: detailed_caption(scene, rng, told) for key, scene in group.items()})
        images = np.stack([draw_image(scene, rng.getrandbits(48)) for scene in scenes.values()])
        yield to_pixels(images), tokenize(tokenizer, [texts[key] for key in scenes])


def _contrast(model: CLIP, pixels: Tensor, ids: Tensor, decorrelation: float) -> tuple[Tensor, float]:
    """The contrastive loss with a penalty on correlated patch features, and the share of images that found their text.

    Texts equal to an image's own are not negatives of it. Without the penalty (the covariance term of VICReg, Bardes et
    al. 2022) a few directions, colour above all, hold nearly all variance of the features, and a linear layer trained
    on them is slow to find the others.
    """
    # The fused attention's backward pass is the slowest part by far on a CPU at these lengths.
    with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        pooled, tokens = model.visual(pixels)
        text = model.encode_text(ids, normalize=True)
    logits = model.logit_scale.exp() * functional.normalize(pooled.float(), dim=-1) @ text.float().T
    labels = torch.arange(len(logits))
    is_same = (ids[:, None] == ids[None]).all(dim=-1) & (labels[:, None] != labels)
    logits = logits.masked_fill(is_same, float("-inf"))
    loss = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
    rows = tokens.float().flatten(0, 1)
    rows = (rows - rows.mean(dim=0)) / (rows.std(dim=0) + 1e-4)
    correlation = rows.T @ rows / len(rows)
    off_diagonal = correlation.square().sum() - correlation.diagonal().square().sum()
    hits = (logits.argmax(dim=1) == labels).float().mean().item()
    return loss + decorrelation * off_diagonal / len(correlation), hits


def train_clip(
    recipe: ClipRecipe,
    tokenizer: PreTrainedTokenizerFast,
    save_to: Path | None = None,
    save_every: int = 1000,
) -> CLIP:
    """Trains the CLIP on the CPU, matrix products in bfloat16, and returns it in float32, in eval mode.

    Args:
        recipe: Steps, batch, rates and seed.
        tokenizer: The demo tokenizer, which the text tower shares with the T5.
        save_to: Folder that receives the model every `save_every` steps, so that a long run can be looked at.
        save_every: Steps between two writes.
    """
    torch.manual_seed(recipe.seed)
    model = CLIP(**model_config(len(tokenizer)))
    model.visual.output_tokens = True
    optimizer, schedule = build_optimizer(
        model,
        relative_lr=recipe.relative_lr,
        vector_lr=recipe.vector_lr,
        num_steps=recipe.num_steps,
        warmup_steps=recipe.warmup_steps,
    )
    started, mean_loss, mean_hit = time.monotonic(), 0.0, 0.0
    model.train()
    for step, (pixels, ids) in enumerate(itertools.islice(_batches(recipe, tokenizer), recipe.num_steps)):
        loss, hits = _contrast(model, pixels, ids, recipe.decorrelation)
        take_step(model, loss, optimizer, schedule)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        mean_hit += (hits - mean_hit) / min(step + 1, 50)
        if step % 50 == 0:
            rate = (step + 1) / (time.monotonic() - started)
            logger.info("clip step %d loss %.4f retrieval %.3f, %.2f steps/s", step, mean_loss, mean_hit, rate)
        if save_to is not None and step > 0 and step % save_every == 0:
            save_clip(model, len(tokenizer), save_to)
    model.visual.output_tokens = False
    return model.eval()


def save_clip(model: CLIP, vocab_size: int, folder: Path) -> None:
    """Writes a folder that ``open_clip.create_model_from_pretrained("local-dir:FOLDER")`` loads, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, str(folder / "open_clip_model.safetensors"), metadata={"format": "pt"})
    config = {
        "model_cfg": model_config(vocab_size),
        "preprocess_cfg": {
            "mean": list(PIXEL_MEAN),
            "std": list(PIXEL_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
