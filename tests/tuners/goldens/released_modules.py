"""Runs the modules of released code inside small random T5s and writes the logits, as goldens for our methods.

    python -m tests.tuners.goldens.released_modules COMPACTER HYPERFORMER HYPERDECODERS

Each is the root of a checkout: rabeehk/compacter at e123daa, rabeehk/hyperformer at 56b0f99, allenai/hyperdecoders at
dcaafd1. Their whole models are subclasses of a T5 of transformers 3 and 4 and cannot be built on today's; so the
released modules (`AdapterController`, `AdapterLayersOneHyperNetController`, `MetaLayersAdapterController`,
`T5LayerFFWithAdapter`, `ParameterGenerator`, `mean_pooling`) are put where their own T5 has them: behind ``o`` of
self-attention and behind ``DenseReluDense``, or in place of the feed-forward layer. One name that transformers has
dropped is given back for an import.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5 import modeling_t5

from tests.models.adapter.goldens.random_adapters import Case, random_t5
from tests.models.adapter.goldens.random_values import D_MODEL, LABELS, NUM_LAYERS, TEXTS
from tests.tuners.goldens import random_modules as ours

GOLDENS = Path(__file__).with_name("released_modules.json")
COMMON = {
    "input_dim": D_MODEL,
    "reduction_factor": D_MODEL // ours.WIDTH,
    "task_reduction_factor": D_MODEL // ours.WIDTH,
    "non_linearity": "gelu_new",
    "tasks": ours.TASKS,
    "device": "cpu",
    "output_dir": "",
    "task_to_adapter": None,
    "task_to_embeddings": None,
}


class Behind(nn.Module):
    """A module, and a step on its output for the task at hand."""

    def __init__(self, module, step):
        super().__init__()
        self.module, self.step = module, step

    def forward(self, values):
        return self.step(self.module(values))


def put_behind(t5: T5ForConditionalGeneration, step) -> None:
    """Puts ``step(stack, layer, place)`` behind self-attention (place 1) and feed-forward (place 0) of every block."""
    for stack, layer in ours.PLACES:
        block = getattr(t5, stack).block[layer]
        attention = block.layer[0].SelfAttention
        attention.o = Behind(attention.o, step(stack, layer, 1))
        block.layer[-1].DenseReluDense = Behind(block.layer[-1].DenseReluDense, step(stack, layer, 0))


def settings_of(config, **own):
    """Returns a released configuration with our sizes."""
    for key, value in {**COMMON, **own}.items():
        setattr(config, key, value)
    return config


def controllers(kind: str, t5, case: Case, task: list[str]) -> None:
    """Puts adapters of the released `AdapterController` into a model: Compacter's, or HyperFormer's dagger."""
    if kind == "compacter":
        from seq2seq.adapters import AdapterConfig, AdapterController

        config = settings_of(AdapterConfig(), tasks=["only"], add_layer_norm_after_adapter=False)
    else:
        from hyperformer.adapters import AdapterConfig, AdapterController

        config = settings_of(AdapterConfig())

    def step(stack, layer, place):
        controller = AdapterController(config)
        ours.fill(controller, f"{kind}.{stack}.{layer}.{place}", case.seed)
        if kind == "compacter":
            return lambda values: controller(values, "only")
        return lambda values: controller(task[0], values)

    put_behind(t5, step)


def hyperformer(t5, case: Case, task: list[str]) -> None:
    """Puts HyperFormer++'s generated adapters into a model."""
    from hyperformer.adapters import (
        AdapterLayersOneHyperNetController,
        MetaAdapterConfig,
        MetaLayersAdapterController,
        TaskEmbeddingController,
    )

    sizes = {
        "task_embedding_dim": ours.EMBEDDING,
        "task_hidden_dim": ours.HIDDEN,
        "projected_task_embedding_dim": ours.PROJECTED,
        "conditional_layer_norm": True,
        "efficient_unique_hyper_net": True,
    }
    config = settings_of(MetaAdapterConfig(), **sizes)
    embeddings = TaskEmbeddingController(config)
    ours.fill(embeddings, "hyperformer", case.seed)
    networks = {}
    for stack in ("encoder", "decoder"):
        networks[stack] = AdapterLayersOneHyperNetController(config, NUM_LAYERS)
        ours.fill(networks[stack], f"hyperformer.{stack}", case.seed)
    applied = MetaLayersAdapterController(config)

    def step(stack, layer, place):
        def run(values):
            made = networks[stack](embeddings(task[0]), layer)
            return applied(values, (made.feed_forward, made.self_attention)[place])

        return run

    put_behind(t5, step)


def hyperdecoder(t5, case: Case, is_plain: bool):
    """Puts hyperdecoder layers into a model and returns what runs it."""
    from modeling.adapter_generators import ParameterGenerator
    from modeling.adapter_t5 import T5LayerFFWithAdapter, mean_pooling

    for key, value in {
        "encoder_adapter_dim": ours.WIDTH, "decoder_adapter_dim": ours.WIDTH, "adapter_norm_input": not is_plain,
        "hypernetwork_bottleneck": ours.GENERATOR_HIDDEN, "encoder_adapter": "manual", "decoder_adapter": "generated",
    }.items():  # fmt: skip
        setattr(t5.config, key, value)
    for stack, layer in ours.PLACES:
        block = getattr(t5, stack).block[layer]
        placed = T5LayerFFWithAdapter(t5.config, is_encoder=stack == "encoder").eval()
        ours.fill(placed.adapter_layer, f"hyperdecoder.{stack}.{layer}", case.seed)
        placed.layer_norm, placed.DenseReluDense = block.layer[-1].layer_norm, block.layer[-1].DenseReluDense
        block.layer[-1] = placed
    generator = ParameterGenerator(t5.config, D_MODEL)
    mlp = nn.Sequential(nn.Linear(D_MODEL, D_MODEL), nn.ReLU(), nn.Linear(D_MODEL, D_MODEL))
    ours.fill(generator, "hyperdecoder.generator", case.seed)
    ours.fill(mlp, "hyperdecoder.mlp", case.seed)

    def run(ids, mask, labels):
        states = t5.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        read = mean_pooling(states, mask)
        for made, block in zip(generator(read if is_plain else mlp(read)), t5.decoder.block, strict=True):
            block.layer[-1].adapter_layer.apply_adapter_params(len(ids), *made)
        return t5(encoder_outputs=(states,), attention_mask=mask, labels=labels)

    return run


@torch.no_grad()
def compute(case: Case, method: str) -> list[list[list[float]]]:
    """Returns the logits of every text, each alone and for its task."""
    t5, task = random_t5(case), [""]
    run = lambda ids, mask, labels: t5(input_ids=ids, attention_mask=mask, labels=labels)  # noqa: E731
    if method.startswith("hyperdecoder"):
        run = hyperdecoder(t5, case, is_plain=method.endswith("plain"))
    elif method == "hyperformer":
        hyperformer(t5, case, task)
    else:
        controllers(method, t5, case, task)
    found = []
    for text, label, number in zip(TEXTS, LABELS, ours.TASK_IDS, strict=True):
        task[0] = ours.TASKS[number]
        ids = torch.tensor([text])
        output = run(ids, torch.ones_like(ids), torch.tensor([[token for token in label if token != -100]]))
        found.append([[round(value, 6) for value in row] for row in output.logits[0].tolist()])
    return found


def main(checkouts: SimpleNamespace) -> None:
    """Writes the goldens of every case and method."""
    modeling_t5.__dict__.setdefault("__HEAD_MASK_WARNING_MSG", "")
    sys.path[:0] = [checkouts.compacter, checkouts.hyperformer, f"{checkouts.hyperdecoders}/hyperdecoder"]
    sys.path.append(f"{checkouts.compacter}/seq2seq")  # one of its files imports as if run from there
    goldens: dict[str, dict[str, object]] = {}
    for case, method in ours.CASES_AND_METHODS:
        goldens.setdefault(case.name, {})[method] = compute(case, method)
    GOLDENS.write_text(json.dumps(goldens) + "\n")


if __name__ == "__main__":
    main(SimpleNamespace(**dict(zip(("compacter", "hyperformer", "hyperdecoders"), sys.argv[1:], strict=True))))
