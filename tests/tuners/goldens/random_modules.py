"""Values of adapters and hypernetworks made from seeds alone, by the names of the released code; shared by both sides.

The small T5, the texts and the labels are those of `tests.models.adapter.goldens.random_adapters`.
"""

import torch

from tests.models.adapter.goldens.random_adapters import CASES
from tests.models.adapter.goldens.random_values import NUM_LAYERS, draw

WIDTH, TASK_IDS = 4, (2, 0, 1, 2)
"""Of every adapter, and the task of each text."""
TASKS = ("rte", "cola", "sst2")
EMBEDDING, HIDDEN, PROJECTED = 6, 5, 7
"""HyperFormer's sizes."""
GENERATOR_HIDDEN, LAYER_EMBEDDING = 5, 10
"""The hyperdecoder's; the second is a constant of the released code."""
PLACES = [(stack, layer) for stack in ("encoder", "decoder") for layer in range(NUM_LAYERS)]
METHODS = ("compacter", "dagger", "hyperformer", "hyperdecoder", "hyperdecoder-plain")
CASES_AND_METHODS = [(case, method) for case in CASES for method in METHODS]


def fill(module: torch.nn.Module, name: str, seed: int) -> None:
    """Sets every parameter of a released module to values that its name has; LayerNorm scales are near 1."""
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(value(f"{name}.{key}", tuple(parameter.shape), seed))


def value(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Returns the values of a released parameter."""
    drawn = draw(name, shape, seed, 0.3)
    return drawn + 1 if "layer_norm.weight" in name or "LayerNorm.weight" in name else drawn
