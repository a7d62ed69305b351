"""Every kind of image encoder, one line each. Importing this imports no torch.

A kind is one folder, ``config.py`` (settings, no torch) and ``model.py`` (the computation), and its settings in
`ImageEncoderConfig`. Nothing outside the folder knows it: callers use
`dept_vl.models.vision.settings.ImageEncoderSettings` and `dept_vl.models.vision.base.ImageEncoder`.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.models.vision.timm_models.config import TimmConfig
from dept_vl.models.vision.transformers_models.config import TransformersConfig

ImageEncoderConfig = Annotated[
    OpenClipConfig | TimmConfig | TransformersConfig,
    Field(discriminator="kind"),
]
"""Settings of any one kind, told apart by their field `kind`."""

DefaultImageEncoder = OpenClipConfig
"""The kind of settings that name none."""


def registered_encoders() -> tuple[type[ImageEncoderSettings], ...]:
    """Returns the settings' class of every kind."""
    union = get_args(ImageEncoderConfig)[0]
    return get_args(union) or (union,)
