"""Caption generation with beams beside transformers' own generate on the same model and inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import shape, write_backbone
from dept_vl.errors import DataError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.t5 import T5Backbone
from dept_vl.models.language.t5_input import EncoderInput
from dept_vl.tuners import DeptConfig

OURS = "dept-vl"
PLAIN = "transformers' plain generate"

_BEAMS = 5
_CAPTION_TOKENS = 14
"""About what a COCO caption has with T5's tokenizer, the end of sequence included."""
_TEXT_TOKENS = 4
_VISUAL_TOKENS, _FEATURE_DIM = 36, 2048


def measure_captions(settings: BenchSettings) -> list[Result]:
    """Measures beam search over prompt, text and 36 visual tokens; both ways must return the same tokens.

    Raises:
        DataError: They do not.
    """
    torch.set_num_threads(settings.threads)
    kind = shape(settings.shape)
    backbone = write_backbone(settings.work_dir / "backbone", kind)
    model, _ = build_model(
        ModelConfig(backbone=str(backbone)),
        DeptConfig(num_virtual_tokens=kind.num_virtual_tokens, rank=kind.rank),
        max_source_length=kind.max_source_length,
        feature_dim=_FEATURE_DIM,
        seed=0,
    )
    model.eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 2000, (settings.batch_size, _TEXT_TOKENS), generator=generator)
    features = torch.rand(settings.batch_size, _VISUAL_TOKENS, _FEATURE_DIM, generator=generator)
    mask = torch.ones_like(ids)

    def ours() -> Tensor:
        return model.generate(ids, mask, features, num_beams=_BEAMS, max_new_tokens=_CAPTION_TOKENS)

    ways = {OURS: ours, PLAIN: lambda: plain_generate(model, ids, mask, features)}
    if not torch.equal(ways[OURS](), ways[PLAIN]()):
        raise DataError("captions: the two ways to generate returned other tokens")
    contestants = [Contestant(name, _timed(way, settings.batch_size)) for name, way in ways.items()]
    rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    notes = [
        f"batch {settings.batch_size}, {_BEAMS} beams, {_CAPTION_TOKENS} tokens, "
        f"{kind.num_virtual_tokens} + {_TEXT_TOKENS} + {_VISUAL_TOKENS} source tokens, float32; encoder included; "
        "both returned the same tokens"
    ]
    floors = [Floor("samples/s over plain generate, same outputs", OURS, PLAIN, 1.0)]
    return [Result(f"captions, beam {_BEAMS}, T5-{settings.shape}", "samples", rounds, floors, notes)]


@torch.no_grad()
def plain_generate(model: AdaptedModel, ids: Tensor, mask: Tensor, features: Tensor) -> Tensor:
    """Generates with transformers' generate from the same encoder states, with nothing of ours in the decoder."""
    joint = cast(EncoderInput, model.joint_input(ids, mask, features))
    states = cast(T5Backbone, model.backbone).encode(joint)
    settings = {"num_beams": _BEAMS, "max_new_tokens": _CAPTION_TOKENS, "do_sample": False}
    generated: Tensor = model.backbone.model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=joint.attention_mask,
        generation_config=model.backbone.generation_config(**settings),
    )
    return generated[:, 1:]


def _timed(way: Callable[[], Tensor], rows: int) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        started = time.perf_counter()
        way()
        return {"rate": rows / (time.perf_counter() - started)}

    return measure
