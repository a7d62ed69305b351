"""Prompt, text, image and answer cue as one input of the backbone: the one place that says what stands where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from dept_vl.data.image_rows import ImageRows, VisualFeatures
from dept_vl.data.text_codec import Frame
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.joint import JointInput
from dept_vl.models.language.shared_prompt import SharedPrompt
from dept_vl.models.language.vision_language import VisionLanguageBackbone


def join_source(
    backbone: Backbone[Any],
    input_ids: Tensor,
    attention_mask: Tensor,
    visual_features: VisualFeatures | None,
    *,
    embed: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    frame: Frame,
    shared: SharedPrompt | None = None,
) -> JointInput:
    """Builds what the backbone reads.

    Args:
        backbone: The frozen model.
        input_ids: (batch, text) token ids, padded on the right.
        attention_mask: (batch, text), 1 for text and 0 for padding.
        visual_features: (batch, visual, feature_dim), of several images a row (batch, images, visual, feature_dim); for
            a backbone with an image encoder of its own the images of each row; or None.
        embed: From the text's embeddings, (batch, text, d_model) float32, to (batch, prompt + text, d_model).
        project: From the features to (batch, images * visual, d_model).
        frame: What stands around prompt, images and text.
        shared: The prompt that all rows have in common; None where each may have its own.

    Raises:
        DataError: The images are not what the backbone reads.
    """
    prompt_and_text_embeds = embed(backbone.embed_source(input_ids).float())  # (batch, prompt + text, d_model)
    if isinstance(backbone, VisionLanguageBackbone):
        return backbone.join_images(prompt_and_text_embeds, input_ids, attention_mask, visual_features, frame, shared)
    assert not isinstance(visual_features, ImageRows)  # only such a backbone has a processor that makes them
    behind = []
    if visual_features is not None:
        behind.append(project(visual_features))  # (batch, images * visual, d_model)
    if frame.tail:
        cue = backbone.embed_tokens(torch.tensor(frame.tail, device=input_ids.device)).float()
        behind.append(cue.expand(len(input_ids), -1, -1))  # (batch, cue, d_model)
    visual_embeds = torch.cat(behind, dim=1) if behind else None
    return cast("JointInput", backbone.join(prompt_and_text_embeds, visual_embeds, attention_mask, shared))
