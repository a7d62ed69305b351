"""Settings of the vision models that transformers loads. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings_dataclass

from dept_vl.errors import ConfigError
from dept_vl.models.vision.settings import MODEL_PATH
from dept_vl.models.vision.stored_encoder import CONFIG_FILE, StoredEncoderSettings
from dept_vl.registry import suggest
from dept_vl.strict import STRICT

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files that say how pictures are prepared; one is enough."""


@dataclass(frozen=True)
class VisionFamily:
    """A kind of vision model.

    Attributes:
        model_class: transformers' name of it, without the text tower and the heads that may be stored beside it.
        class_tokens: Tokens before the patches, and before the register tokens that its config counts.
    """

    model_class: str
    class_tokens: int


_SIGLIP = VisionFamily("SiglipVisionModel", 0)

FAMILIES = {
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": VisionFamily("Dinov2Model", 1),
    "dinov2_with_registers": VisionFamily("Dinov2WithRegistersModel", 1),
    "dinov3_vit": VisionFamily("DINOv3ViTModel", 1),
    "dinov3_convnext": VisionFamily("DINOv3ConvNextModel", 1),
}
"""``model_type`` of a ``config.json`` -> what it is; SigLIP 2 with pictures of one size is a ``siglip``."""

_NAFLEX = ("siglip2", "siglip2_vision_model")


def find_vision_family(model_type: object, name: str) -> VisionFamily:
    """Returns the family of a model.

    Args:
        model_type: What its ``config.json`` says.
        name: What the user called it, for the message.

    Raises:
        ConfigError: It is none that is read here.
    """
    family = FAMILIES.get(str(model_type))
    if family is not None:
        return family
    if model_type in _NAFLEX:
        raise ConfigError(
            f"model.image_encoder.model: {name} is a NaFlex SigLIP 2, which gives every picture a grid of its own; "
            "take one with pictures of one size, such as google/siglip2-base-patch16-224"
        )
    hint = "; kind open-clip reads CLIP" if str(model_type).startswith("clip") else ""
    raise ConfigError(
        f"model.image_encoder.model: {name} is a {model_type!r}, no vision model that is read "
        f"here{suggest(str(model_type), FAMILIES)} (known: {', '.join(FAMILIES)}){hint}"
    )


@settings_dataclass(frozen=True, config=STRICT)
class TransformersConfig(StoredEncoderSettings):
    """A vision model of transformers, and how images become its grid of features."""

    implementation: ClassVar[str] = "dept_vl.models.vision.transformers_models.model:TransformersEncoder"
    packages: ClassVar[Mapping[str, str]] = {"transformers": "transformers"}
    is_sharded: ClassVar[bool] = True
    kind: Literal["transformers"] = "transformers"
    model: Annotated[
        str,
        MODEL_PATH,
        Field(description="hub id or local folder of a SigLIP (2), DINOv2 or DINOv3 in transformers' format"),
    ] = "google/siglip2-base-patch16-224"

    def check_folder(self, folder: Path, config: dict[str, Any]) -> None:
        """See `StoredEncoderSettings.check_folder`."""
        if "model_type" not in config and "architecture" in config:
            raise ConfigError(
                f"model.image_encoder.model: {folder / CONFIG_FILE}: describes a {config['architecture']!r} of timm; "
                "kind timm reads it"
            )
        find_vision_family(config.get("model_type"), str(folder))
        super().check_folder(folder, config)
        if not any((folder / name).is_file() for name in PROCESSOR_FILES):
            raise ConfigError(
                f"model.image_encoder.model: {folder}: no image processor ({PROCESSOR_FILES[0]}) there, so that it is "
                "not known how pictures are prepared; put the file of the model it was trained with beside its weights"
            )
