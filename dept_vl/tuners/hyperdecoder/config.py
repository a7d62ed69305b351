"""Settings of hyperdecoders. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import SEVERAL_TASKS


@dataclass(frozen=True, config=STRICT)
class HyperDecoderConfig(TunerSettings):
    """Adapters beside the encoder's feed-forwards, and for every example adapters of its own in the decoder.

    On T5-base 15,259,192 as the authors' code has it, and 14,078,008 with ``mlp: false``: that is the paper's row,
    1,759,751 for each of eight tasks. No part of it depends on the task, so it can train on one.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.hyperdecoder.model:HyperDecoder"
    reference: ClassVar[str] = "Ivison & Peters 2022, Hyperdecoders, arXiv 2203.08304"
    needs_encoder: ClassVar[bool] = True
    # Its temperature sampler is commented out in the code: batches hold rows of all tasks, as many as each has.
    recipe: ClassVar[Recipe] = {key: value for key, value in SEVERAL_TASKS.items() if key != "mix"}
    recipe_source: ClassVar[str] = "allenai/hyperdecoders: hyperdecoder/configs/experiments/glue_t5_base.json"
    name: Literal["hyperdecoder"] = "hyperdecoder"
    lr: Annotated[float, Field(gt=0, description="peak rate of adapters and network")] = 3e-4
    encoder_bottleneck: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width of the encoder's adapters")] = 64
    decoder_bottleneck: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width of the decoder's adapters")] = 64
    hidden_dim: Annotated[int, Field(ge=1, le=MAX_SIZE, description="what the decoder's adapters are linear in")] = 128
    layer_dim: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width of the embeddings of blocks")] = 10
    mlp: Annotated[
        bool, Field(description="two maps with ReLU on the mean of the encoder's states (false in the paper's tables)")
    ] = True
    normed_input: Annotated[
        bool,
        Field(description="adapters read what the feed-forward reads, after its norm; false: what the norm reads"),
    ] = True
