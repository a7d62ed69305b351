"""Sizes, texts and values made from seeds alone; needs torch and NumPy, no transformers and nothing of ours.

Every value is drawn by NumPy from (seed, tensor name), so that neither torch's generator nor the first values that a
release of transformers gives matter.
"""

import zlib

import numpy as np
import torch

D_MODEL, VOCAB_SIZE, NUM_LAYERS, NUM_HEADS = 16, 32, 2, 2
TEXTS = ((5, 9, 1), (7, 3, 11, 20, 8, 1), (2, 30, 4, 6, 12, 13, 14, 15, 16, 17, 18, 1), (1,))
"""Token ids of 3, 6, 12 and 1 tokens; the third is as long as the adapters' s."""
LABELS = ((10, 1, -100, -100), (21, 22, 23, 1), (6, 1, -100, -100), (9, 8, 1, -100))
MAX_NEW_TOKENS = 6


def draw(name: str, shape: tuple[int, ...], seed: int, scale: float) -> torch.Tensor:
    """Returns normal values that depend on name, shape, seed and scale."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))


def t5_values(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Returns the values of one of a T5's parameters, by its name in transformers."""
    is_norm = name.endswith("layer_norm.weight")
    is_bias = name.endswith("relative_attention_bias.weight")
    values = draw(name, shape, seed, 0.1 if is_norm else 1.5 if is_bias else 0.4)
    return values + 1 if is_norm else values


def padded(rows: tuple[tuple[int, ...], ...], length: int, value: int = 0) -> torch.Tensor:
    """Pads rows of token ids on the right, (rows, length)."""
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
