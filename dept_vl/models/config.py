"""Which frozen models are joined, and how. Plain settings: importing this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.models.demo import DEMO
from dept_vl.models.vision.encoders import DefaultImageEncoder, ImageEncoderConfig
from dept_vl.strict import STRICT, LocalPath

MAX_IMAGES = 2
"""Images of a row that the `vl-t5` projection tells apart: NLVR2 has two."""

BACKBONE = LocalPath(or_name=True, words=(DEMO,))
"""What names a backbone: a folder, a hub id or the packaged one."""

VisualPositionBias = Literal["zero", "sequential"]
"""T5's relative position bias of pairs with a visual token (``dept_vl.models.language.relative_bias``)."""


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The frozen language model, the frozen image encoder, and the projection between them, trained or frozen."""

    backbone: Annotated[
        str,
        BACKBONE,
        Field(
            description="T5 (v1.1, Flan), GPT-2, Llama, Qwen2, Qwen3, Gemma, SmolLM3, Mistral, or a vision-language "
            "model (Qwen3-VL, SmolVLM, ...): hub id, local folder, or 'demo' for the packaged T5"
        ),
    ] = "t5-base"
    revision: Annotated[str | None, Field(description="hub revision of the backbone; null: the newest")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="precision its frozen weights are kept and multiplied in; trainable tensors stay float32"),
    ] = "float32"
    system_prompt: Annotated[
        str | None,
        Field(description="vision-language backbones: what a system's turn says before the user's; null: none"),
    ] = None
    image_encoder: Annotated[ImageEncoderConfig, Field(description="how the frozen image encoder is loaded")] = Field(
        default_factory=DefaultImageEncoder
    )
    visual_projection: Annotated[
        Literal["linear", "vl-t5"],
        Field(description="'linear' (the paper's words) or Sung et al.'s visual embedding, with norms, box and order"),
    ] = "linear"
    visual_projection_std: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="std of the projection's first weights; null: nn.Linear's own"),
    ] = None
    frozen_projection: Annotated[
        str | None,
        LocalPath(or_name=True, words=(DEMO,), is_needed=True),
        Field(
            description="run whose trained projection is used and stays frozen: folder, hub id, or 'demo' for the "
            "packaged one; null: the projection is trained"
        ),
    ] = None
    visual_position_bias: Annotated[
        VisualPositionBias | None,
        Field(description="T5 relative bias of pairs with a visual token: plain T5's, or 'zero' (Sung et al.; null)"),
    ] = None
    train_connector: Annotated[
        bool,
        Field(
            description="vision-language backbones: also train what connects their image encoder, at "
            "optim.projection_lr; the adapter then holds it"
        ),
    ] = False
    dropout_rate: Annotated[
        float | None, Field(ge=0.0, lt=1.0, description="dropout in the frozen backbone while training; null: its own")
    ] = None
    gradient_checkpointing: Annotated[
        bool,
        Field(description="recompute the (first) stack's activations in the backward pass: less memory, more time"),
    ] = False
