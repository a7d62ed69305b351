"""The image encoder of a vision-language backbone as what a feature store is filled with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dept_vl.data.image_processing import ImageProcessing
from dept_vl.data.image_rows import ImageRows, ProcessedImage, Record, TowerFeatures
from dept_vl.data.record_store import CONNECTOR, TOWER
from dept_vl.errors import ConfigError
from dept_vl.models.language.image_records import make_tower_features
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.models.weights_hash import hash_tensors

Where = Literal["auto", "tower", "connector"]

_PROBE = 224
"""Side in pixels of the picture by which the sizes are found."""


def backbone_fingerprint(
    backbone: VisionLanguageBackbone, processing: ImageProcessing, exif: Literal["apply", "ignore"]
) -> dict[str, Any]:
    """Returns what the features of a backbone's images depend on, whatever is stored of them.

    Args:
        backbone: With its weights.
        processing: Its.
        exif: How pictures are opened.
    """
    base = backbone.model.base_model
    text = backbone.layout.blocks.split(".")[1] + "."  # the language model in it
    weights = {name: tensor for name, tensor in base.state_dict().items() if not name.startswith(text)}
    return {
        "kind": "backbone",
        "model": type(backbone.processor).__name__,
        "preprocessing": processing.settings(),
        "image_text": processing.text,
        "image_token_id": backbone.image_token_id,
        "weights_sha256": hash_tensors(weights),
        "exif": exif,
    }


class BackboneEncoder:
    """Encodes the images of a vision-language backbone; all frozen.

    Attributes:
        label: What a store's folder is called after.
        fingerprint: What its features depend on, and what of them is stored.
        preprocess: Turns a picture into what the encoder takes; loader processes must be able to receive it.
        exif: How pictures are opened for it.
        where: Behind what features are taken, ``"tower"`` or ``"connector"``.
        levels: As `RecordStore.levels`.
        feature_dim: Numbers a token has.
    """

    def __init__(
        self,
        backbone: VisionLanguageBackbone,
        *,
        label: str,
        exif: Literal["apply", "ignore"] = "apply",
        where: Where = "auto",
        dtype: str = "bfloat16",
    ) -> None:
        """Finds out what an image becomes behind tower and connector.

        Args:
            backbone: On the device where it is to compute.
            label: What the store's folder is called after.
            exif: How pictures are opened.
            where: Behind what to take features; ``"auto"``: where an image has fewer numbers.
            dtype: Stored type of a number.

        Raises:
            ConfigError: The family has no connector that could be run by itself, and `where` is ``"tower"``.
        """
        self._backbone = backbone
        self.label, self.exif = label, exif
        self.preprocess = backbone.image_processing()
        probe = self._onto_device([self.preprocess(_picture())])
        record = self._records(probe)[0]
        tower = self._tower_of(probe, record, where)
        self.where = CONNECTOR if tower is None else TOWER
        self.levels = 1 if record.deepstack is None or tower is not None else 1 + len(record.deepstack)
        kept = record.tokens if tower is None else tower.features
        self.feature_dim = kept.shape[-1]
        self._tokens_per_place = kept.shape[:-1].numel() / len(record.tokens)
        found = {
            **backbone_fingerprint(backbone, self.preprocess, exif),
            "where": self.where,
            "levels": self.levels,
            "feature_dim": self.feature_dim,
            "dtype": dtype,
            "transformers": version("transformers"),
        }
        if tower is not None:
            found["connector_tokens"] = tower.features.shape[1]
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(found))
        self.earlier_fingerprint = self.fingerprint

    def _tower_of(self, probe: Sequence[ProcessedImage], record: Record, where: Where) -> TowerFeatures | None:
        """Returns what to store of the picture behind the tower; None to store it behind the connector."""
        if where == CONNECTOR:
            return None
        connector = self._backbone.connector
        tower = None if connector is None else self._tower(probe, connector)[0]
        if tower is None:
            if where == TOWER:
                raise ConfigError(
                    f"--where tower: transformers gives no features of {self._backbone.family} before its connector: "
                    "it is a part of the image encoder, or more is done after it; use connector (or auto, which does)"
                )
            return None
        again = self._backbone.records(ImageRows.one_each([tower]))[0][0]
        if not torch.equal(again.tokens, record.tokens):
            raise ConfigError(
                f"--where: the connector of {self._backbone.family} gives other tokens by itself than in the model; "
                "use connector"
            )
        is_narrower = tower.features.numel() < record.tokens.numel()
        return tower if where == TOWER or is_narrower else None

    @torch.no_grad()
    def __call__(self, images: Sequence[ProcessedImage]) -> Sequence[Record | TowerFeatures]:
        """Returns what is stored of some images, on the CPU."""
        images = self._onto_device(images)
        connector = self._backbone.connector
        made: Sequence[Record | TowerFeatures] = (
            self._records(images) if self.where == CONNECTOR or connector is None else self._tower(images, connector)
        )
        return [one.map(Tensor.cpu) for one in made]

    def count_tokens(self, image: ProcessedImage) -> int:
        """Returns how many tokens are stored of an image; nothing is encoded."""
        places = int((image.ids == self._backbone.image_token_id).sum())
        return round(places * self._tokens_per_place)

    @torch.no_grad()
    def _records(self, images: Sequence[ProcessedImage]) -> list[Record]:
        return [record for (record,) in self._backbone.records(ImageRows.one_each(images))]

    @torch.no_grad()
    def _tower(self, images: Sequence[ProcessedImage], connector: nn.Module) -> list[TowerFeatures]:
        return make_tower_features(self._backbone.model, images, connector, self._backbone.layout.image_dim)

    def _onto_device(self, images: Sequence[ProcessedImage]) -> list[ProcessedImage]:
        device = self._backbone.word_embeddings.device
        return [image.map(lambda tensor: tensor.to(device)) for image in images]


def _picture() -> Image.Image:
    """Returns a picture of which no part is of one colour."""
    ramp = np.arange(_PROBE, dtype=np.uint8)
    return Image.fromarray(np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1, None]), axis=-1))
