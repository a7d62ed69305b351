"""Settings of the image towers of CLIP models that open_clip loads. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.models.vision.open_clip.files import (
    described_tower,
    find_weight_file,
    read_folder_config,
    refuse_weight_file,
)
from dept_vl.models.vision.settings import LOCAL, MODEL_PATH, ImageEncoderSettings
from dept_vl.strict import STRICT

HUB = "hf-hub:"
"""What the name of a model on the hub begins with."""


@dataclass(frozen=True, config=STRICT)
class OpenClipConfig(ImageEncoderSettings):
    """A CLIP image tower and how images become its grid features.

    The defaults are CLIP-T5 as Sung et al. built it: RN101, a plain resize to 224 x 224 and the 7 x 7 grid
    max-pooled to 6 x 6 (VL_adapter, ``feature_extraction/coco_CLIP.py`` and ``src/clip_prepro_feats.py``).
    """

    implementation: ClassVar[str] = "dept_vl.models.vision.open_clip.model:OpenClipEncoder"
    names: ClassVar[tuple[str, ...]] = ("model", "pretrained")
    packages: ClassVar[Mapping[str, str]] = {"open_clip": "open_clip_torch"}
    kind: Literal["open-clip"] = "open-clip"
    model: Annotated[
        str,
        MODEL_PATH,
        Field(description="open_clip model name, a local open_clip folder, or 'demo' for the packaged one"),
    ] = "RN101"
    pretrained: Annotated[
        str | None, Field(description="open_clip weight tag; unused for a folder, 'hf-hub:' or 'demo'")
    ] = "openai"
    preprocessing: Annotated[
        Literal["clip", "resize"],
        Field(description="'clip': CLIP's own resize and centre crop; 'resize': squash both sides (Sung et al.)"),
    ] = "resize"

    @property
    def folder(self) -> Path | None:
        """The folder `model` stands for: the packaged one for ``"demo"``, or an existing path; else None."""
        if self.model == DEMO:
            return ASSETS / "clip"
        path = Path(self.model.removeprefix(LOCAL))
        return path if path.is_dir() or self.model.startswith(LOCAL) else None

    @property
    def label(self) -> str:
        """The model, without where the hub has it, and its weights' tag: ``RN101-openai``."""
        known = self.known_fingerprint()
        name = str(known["model"]).removeprefix(HUB)
        return f"{name}-{known['pretrained']}" if known["pretrained"] else name

    def feature_dim(self) -> int:
        """See `ImageEncoderSettings.feature_dim`; a model on the hub is not known without its files."""
        tower = described_tower(self.model, self.folder)
        if "timm_model_name" in tower:
            from dept_vl.models.vision.timm_trunk import described_trunk_width

            return described_trunk_width(tower["timm_model_name"])
        return int(tower["width"]) * (32 if isinstance(tower["layers"], list) else 1)

    def check_files(self) -> None:
        """See `ImageEncoderSettings.check_files`."""
        folder = self.folder
        if folder is not None:
            read_folder_config(folder)
            find_weight_file(folder)
            return
        refuse_weight_file("model.image_encoder.model", self.model)
        if self.pretrained is not None and not self.model.startswith(HUB):
            refuse_weight_file("model.image_encoder.pretrained", self.pretrained)

    def known_fingerprint(self) -> dict[str, Any]:
        """See `ImageEncoderSettings.known_fingerprint`.

        A folder is named by its last part (its weights' hash tells it apart), and has no `pretrained`. There is no
        `kind`: stores and adapters of before there were several are of this one.
        """
        name = self.model if self.folder is None or self.model == DEMO else self.folder.resolve().name
        return {
            "model": name,
            "pretrained": self.pretrained if self.folder is None and not self.model.startswith(HUB) else None,
            "preprocessing": self.preprocessing,
            "pooled_grid": self.pooled_grid,
            "dtype": self.dtype,
            **self.exif_fingerprint(),
        }
