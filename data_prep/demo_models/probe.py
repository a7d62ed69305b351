"""Linear probes of the demo CLIP: what a linear layer can read from one frozen patch token."""

from __future__ import annotations

import random

import numpy as np
import torch
from open_clip import CLIP
from torch import Tensor

from data_prep.demo_models.clip import to_pixels
from data_prep.demo_world.drawing import draw_image
from data_prep.demo_world.scene import COLORS, GRID, SHAPES, SIZES, Scene, Split, draw_scene

_ATTRIBUTES = {"color": COLORS, "shape": SHAPES, "size": SIZES}
_RIDGE = 1.0  # strength of the probes' ridge penalty, on standardised features


@torch.no_grad()
def grid_features(model: CLIP, scenes: list[Scene], seed: int) -> Tensor:
    """Draws scenes and returns the image tower's normed patch tokens: (scenes, cells, width)."""
    rng = random.Random(seed)
    pixels = to_pixels(np.stack([draw_image(scene, rng.getrandbits(48)) for scene in scenes]))
    chunks = [
        model.visual.forward_intermediates(
            chunk, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NCHW"
        )["image_intermediates"][-1]
        for chunk in pixels.split(250)
    ]
    return torch.cat(chunks).flatten(2).transpose(1, 2)


def _labelled(model: CLIP, split: Split, num_scenes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Features and labels of every cell; an attribute's label is -1 where a cell is empty."""
    rng = random.Random(split)
    scenes = [draw_scene(rng, split) for _ in range(num_scenes)]
    labels = {name: torch.full((num_scenes, GRID * GRID), -1) for name in (*_ATTRIBUTES, "position")}
    labels["occupied"] = torch.zeros(num_scenes, GRID * GRID, dtype=torch.long)
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            for name, values in _ATTRIBUTES.items():
                labels[name][row, item.cell] = values.index(getattr(item, name))
            labels["position"][row, item.cell] = item.cell
            labels["occupied"][row, item.cell] = 1
    return grid_features(model, scenes, seed=num_scenes), labels


def probe_accuracy(model: CLIP, num_train: int = 1500, num_test: int = 500) -> dict[str, float]:
    """The share of cells whose attribute a linear ridge classifier reads from the cell's patch token.

    Trained on scenes of the train split, measured on scenes of the test split; ``occupied`` is over all cells, the
    others over cells with an object. Patches and cells coincide in the demo CLIP.
    """
    train, train_labels = _labelled(model, "train", num_train)
    test, test_labels = _labelled(model, "test", num_test)
    mean, std = train.flatten(0, 1).mean(0), train.flatten(0, 1).std(0) + 1e-6
    accuracy = {}
    for name, labels in train_labels.items():
        known, test_known = labels >= 0, test_labels[name] >= 0
        inputs = _with_bias((train[known] - mean) / std)
        targets = torch.nn.functional.one_hot(labels[known]).double()
        gram = inputs.T @ inputs + _RIDGE * torch.eye(inputs.shape[1], dtype=torch.double)
        weights = torch.linalg.solve(gram, inputs.T @ targets)
        guesses = (_with_bias((test[test_known] - mean) / std) @ weights).argmax(dim=1)
        accuracy[name] = (guesses == test_labels[name][test_known]).double().mean().item()
    return accuracy


def _with_bias(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
