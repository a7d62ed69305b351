"""Our methods against the modules of the code that their authors released, run beside ours once (see goldens/)."""

import json
from pathlib import Path

import pytest
import torch

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.config import ModelConfig
from tests.models.adapter.goldens.random_adapters import CASES, random_backbone
from tests.models.adapter.goldens.random_values import D_MODEL, LABELS, TEXTS, padded
from tests.tuners.adapted import settings
from tests.tuners.goldens import random_modules as released

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "released_modules.json").read_text())
PLACES = {"self_attn_o": 1, "ff_out": 0}
"""The two places of a block in HyperFormer's numbering."""


def model_of(case, tuner):
    backbone = random_backbone(case)
    built = tuner.empty(backbone.tuner_context(12, tasks=released.TASKS))
    return AdaptedModel(backbone, built, None, ModelConfig(), tasks=released.TASKS).eval()


def set_linear(weight, bias, name, seed, rearrange=lambda rows: rows):
    """Sets a linear map of ours to the released one's values."""
    inputs = weight.shape[1:] if weight.dim() > 1 else ()
    weight.copy_(rearrange(released.value(f"{name}.weight", (weight.shape[0], *inputs), seed)))
    bias.copy_(rearrange(released.value(f"{name}.bias", tuple(bias.shape), seed)))


def set_adapter(weights, name, seed, down, up):
    set_linear(weights.down, weights.down_bias, f"{name}.{down}", seed)
    set_linear(weights.up, weights.up_bias, f"{name}.{up}", seed)


def compacter(case):
    model = model_of(case, settings("adapter", bottleneck=released.WIDTH, norms=False))
    for stack, layer in released.PLACES:
        for part, place in PLACES.items():
            name = f"compacter.{stack}.{layer}.{place}.adapters.only"
            ours = model.tuner.adapters[f"{stack}_{layer}_{part}"]
            set_adapter(ours, name, case.seed, "down_sampler", "up_sampler")
    return model


class OfTask:
    """One task's tensors of an adapter for each."""

    def __init__(self, weights, task):
        self.down, self.down_bias = weights.down[task], weights.down_bias[task]
        self.up, self.up_bias = weights.up[task], weights.up_bias[task]


def dagger(case):
    model = model_of(case, settings("adapter", bottleneck=released.WIDTH, per_task=True, norms=False))
    for stack, layer in released.PLACES:
        for part, place in PLACES.items():
            key, name = f"{stack}_{layer}_{part}", f"dagger.{stack}.{layer}.{place}"
            for number, task in enumerate(released.TASKS):
                ours = OfTask(model.tuner.adapters[key], number)
                set_adapter(ours, f"{name}.adapters.{task}", case.seed, "down_sampler", "up_sampler")
            norm = model.tuner.post_norms[key]
            set_linear(norm.weight, norm.bias, f"{name}.post_layer_norm", case.seed)
    return model


def hyperformer(case):
    sizes = {"embedding_dim": released.EMBEDDING, "hidden_dim": released.HIDDEN, "projected_dim": released.PROJECTED}
    model = model_of(case, settings("hyperformer", bottleneck=released.WIDTH, norms=False, **sizes))
    for number, task in enumerate(released.TASKS):
        embedding = released.value(f"hyperformer.task_to_embeddings.{task}", (released.EMBEDDING,), case.seed)
        model.tuner.task_embeddings[number].copy_(embedding)
    for stack, ours in model.tuner.networks.items():
        name = f"hyperformer.{stack}"
        for tensor, theirs in (
            (ours.layer_embeddings, "layer_id_embeddings"), (ours.place_embeddings, "adapters_block_type"),
        ):  # fmt: skip
            tensor.copy_(released.value(f"{name}.{theirs}.weight", tuple(tensor.shape), case.seed))
        for module, theirs in (
            (ours.project[0], "task_hypernet.task_embeding_generator.0"),
            (ours.project[2], "task_hypernet.task_embeding_generator.2"),
            (ours.norm, "LayerNorm"),
            (ours.down, "down_sampler_hyper_net.weight_generator.0"),
            (ours.down_bias, "down_sampler_hyper_net.bias_generator.0"),
            (ours.up, "up_sampler_hyper_net.weight_generator.0"),
            (ours.up_bias, "up_sampler_hyper_net.bias_generator.0"),
            (ours.scale, "post_layernorm_hypernet.weight_generator"),
            (ours.shift, "post_layernorm_hypernet.bias_generator"),
        ):
            set_linear(module.weight, module.bias, f"{name}.{theirs}", case.seed)
    return model


def transposed(rows, columns):
    """Rearranges the rows of a map that makes a matrix into those of one that makes its transpose."""
    return lambda values: values.unflatten(0, (rows, columns)).transpose(0, 1).flatten(0, 1)


def hyperdecoder(case, *, is_plain=False):
    own = {"mlp": False, "normed_input": False} if is_plain else {}
    width = released.WIDTH
    sizes = {"encoder_bottleneck": width, "decoder_bottleneck": width, "hidden_dim": released.GENERATOR_HIDDEN}
    model = model_of(case, settings("hyperdecoder", **sizes, **own))
    for layer, ours in enumerate(model.tuner.encoder_adapters):
        set_adapter(ours, f"hyperdecoder.encoder.{layer}", case.seed, "adapter_down_manual", "adapter_up_manual")
    generator, name = model.tuner.generator, "hyperdecoder.generator"
    embeddings = generator.layer_embeddings
    embeddings.copy_(released.value(f"{name}.layer_embed.weight", tuple(embeddings.shape), case.seed))
    for module, theirs, rearrange in (
        (generator.hidden, "linear1", lambda rows: rows),
        (generator.down, "weight_down", transposed(D_MODEL, width)),
        (generator.up, "weight_up", transposed(width, D_MODEL)),
        (generator.down_bias, "bias_down", lambda rows: rows),
        (generator.up_bias, "bias_up", lambda rows: rows),
    ):
        set_linear(module.weight, module.bias, f"{name}.decoder.{theirs}", case.seed, rearrange)
    if not is_plain:
        for number in (0, 2):
            module = generator.mlp[number]
            set_linear(module.weight, module.bias, f"hyperdecoder.mlp.{number}", case.seed)
    return model


BUILDERS = {
    "compacter": compacter,
    "dagger": dagger,
    "hyperformer": hyperformer,
    "hyperdecoder": hyperdecoder,
    "hyperdecoder-plain": lambda case: hyperdecoder(case, is_plain=True),
}


@pytest.mark.parametrize("rows", [(0,), (1,), (2,), (3,), (0, 3), (2, 1, 0, 3)], ids=str)
@pytest.mark.parametrize("method", released.METHODS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@torch.no_grad()
def test_logits_are_those_of_the_released_modules(case, method, rows):
    """In any batch: of one row, of two with one task, or of all with several."""
    model = BUILDERS[method](case)
    ids = padded(tuple(TEXTS[row] for row in rows), max(len(TEXTS[row]) for row in rows))
    labels = torch.tensor([LABELS[row] for row in rows])
    task_ids = torch.tensor([released.TASK_IDS[row] for row in rows])
    found = model(ids, (ids != 0).long(), labels, task_ids=task_ids).logits
    for index, row in enumerate(rows):
        expected = torch.tensor(GOLDENS[case.name][method][row])
        torch.testing.assert_close(found[index, : len(expected)], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_goldens_are_of_five_different_models(case):
    first = [torch.tensor(GOLDENS[case.name][method][1]) for method in released.METHODS]
    for number, one in enumerate(first):
        for other in first[number + 1 :]:
            assert (one - other).abs().max() > 0.1
