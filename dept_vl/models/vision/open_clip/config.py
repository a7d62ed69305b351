"""Settings of CLIP image towers. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import STRICT


@dataclass(frozen=True, config=STRICT)
class OpenClipConfig:
    """The frozen CLIP image tower and how images become grid features.

    The defaults are CLIP-T5 as Sung et al. built it: RN101, a plain resize to 224 x 224 and the 7 x 7 grid
    max-pooled to 6 x 6 (VL_adapter, ``feature_extraction/coco_CLIP.py`` and ``src/clip_prepro_feats.py``).
    """

    model: Annotated[
        str, Field(description="open_clip model name, a local open_clip folder, or 'demo' for the packaged one")
    ] = "RN101"
    pretrained: Annotated[
        str | None, Field(description="open_clip weight tag; unused for a folder, 'hf-hub:' or 'demo'")
    ] = "openai"
    preprocessing: Annotated[
        Literal["clip", "resize"],
        Field(description="'clip': CLIP's own resize and centre crop; 'resize': squash both sides (Sung et al.)"),
    ] = "resize"
    pooled_grid: Annotated[
        int | None,
        Field(ge=1, description="side of the grid after adaptive max-pooling (6: 36 visual tokens); null: unpooled"),
    ] = 6
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"], Field(description="stored precision of cached features")
    ] = "float16"
