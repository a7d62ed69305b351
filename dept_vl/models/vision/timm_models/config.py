"""Settings of the image models that timm loads. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.models.vision.settings import MODEL_PATH
from dept_vl.models.vision.stored_encoder import CONFIG_FILE, StoredEncoderSettings
from dept_vl.strict import STRICT

HUB = "hf-hub:"
"""What timm lets the name of a model on the hub begin with."""


@dataclass(frozen=True, config=STRICT)
class TimmConfig(StoredEncoderSettings):
    """A model of timm, and how images become its grid of features."""

    implementation: ClassVar[str] = "dept_vl.models.vision.timm_models.model:TimmEncoder"
    packages: ClassVar[Mapping[str, str]] = {"timm": "timm"}
    hub_prefix: ClassVar[str] = HUB
    kind: Literal["timm"] = "timm"
    model: Annotated[
        str,
        MODEL_PATH,
        Field(description="timm model name with its weights' tag, 'hf-hub:' id, or a local folder of timm"),
    ] = "vit_base_patch16_siglip_224.v2_webli"

    def check_folder(self, folder: Path, config: dict[str, Any]) -> None:
        """See `StoredEncoderSettings.check_folder`."""
        if not isinstance(config.get("architecture"), str):
            found = f" (it is of a {config['model_type']!r} of transformers)" if "model_type" in config else ""
            raise ConfigError(
                f"model.image_encoder.model: {folder / CONFIG_FILE}: names no timm architecture{found}; a folder that "
                "timm.models.save_for_hf writes does; kind transformers reads that library's folders"
            )
        super().check_folder(folder, config)
