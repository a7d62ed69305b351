"""What the settings of every kind of image encoder have in common. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.data.feature_format import UNRECORDED
from dept_vl.models.demo import DEMO
from dept_vl.strict import STRICT, LocalPath

if TYPE_CHECKING:
    import torch

LOCAL = "local-dir:"
"""What the name of a local folder may begin with, as open_clip and timm have it."""

MODEL_PATH = LocalPath(or_name=True, words=(DEMO,), prefix=LOCAL)
"""The mark of a kind's `model` that may be a folder. Marks are found by dotted key, so that every kind has this one."""


@dataclass(frozen=True, config=STRICT)
class ImageEncoderSettings:
    """The settings of a kind of image encoder: a field `kind` of its own, which encoder, and what features it gives.

    Attributes:
        kind: What ``--model.image_encoder.kind`` takes.
        model: Which encoder of its kind, such as a name or a folder.
        implementation: ``module:Class`` of the `ImageEncoder`, imported when one is loaded.
        names: Keys of a fingerprint that say what an encoder is called; its weights' hash says what it is.
        packages: Key of a fingerprint -> the distribution whose version stands there. These keys say who computed the
            features and not what they are: readers do not compare them.
    """

    implementation: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ("model",)
    packages: ClassVar[Mapping[str, str]]
    kind: str
    model: str
    pooled_grid: Annotated[
        int | None,
        Field(ge=1, description="side of the grid after adaptive max-pooling (6: 36 visual tokens); null: unpooled"),
    ] = 6
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32", "int8"],
        Field(description="stored precision of cached features; 'int8': with a scale for each token"),
    ] = "float16"
    exif: Annotated[
        Literal["apply", "ignore"],
        Field(
            description="'apply': turn pictures as their EXIF orientation says; 'ignore': as stored, as CLIP's tools"
        ),
    ] = "apply"

    @property
    def label(self) -> str:
        """What a feature store's folder is called after."""
        return self.model

    def feature_dim(self) -> int:
        """Returns the width of the features from the encoder's description alone, no weights needed.

        Raises:
            ConfigError: The encoder is not known here, or gives no grid of features.
        """
        width: int = self._class().described_width(self)
        return width

    def known_fingerprint(self) -> dict[str, Any]:
        """Returns the part of the fingerprint (`ImageEncoder.fingerprint`) that is known without loading the encoder.

        A kind adds its other settings that change the features.
        """
        own = {"kind": self.kind, "model": self.model, "pooled_grid": self.pooled_grid, "dtype": self.dtype}
        return {**own, **self.exif_fingerprint()}

    def exif_fingerprint(self) -> dict[str, str]:
        """Returns what a fingerprint says of `exif`: nothing of ``ignore``, as before there was a choice."""
        return {} if self.exif == UNRECORDED["exif"] else {"exif": self.exif}

    def check_files(self) -> None:
        """Refuses an encoder whose files do not do, as far as that is known without torch.

        Raises:
            ConfigError: They are incomplete or in another format; the message says what to do.
        """

    def load(self, device: str | torch.device = "cpu") -> Any:
        """Loads the `ImageEncoder` onto a device, frozen.

        Raises:
            ConfigError: It is not known, its files are incomplete or do not fit together, or the settings do not fit
                it.
        """
        return self._class()(self).to(device)

    def _class(self) -> Any:
        module, name = self.implementation.split(":")
        return getattr(import_module(module), name)
