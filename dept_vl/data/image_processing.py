"""An image to what a vision-language model's processor makes of it, in the process that reads the image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

import torch
from PIL import Image

from dept_vl.data.image_rows import ProcessedImage
from dept_vl.errors import DataError, first_line

PIXELS = "pixel_values"


class ImageProcessing:
    """Turns one image into its tokens' ids and the tensors that the backbone's image encoder reads.

    Loader processes must be able to receive it.

    Attributes:
        text: What stands for one image in the chat template.
    """

    def __init__(
        self,
        processor: Any,
        text: str,
        image_token_id: int,
        names: Collection[str],
        *,
        has_markers: bool = True,
    ) -> None:
        """Takes a processor and what it is to be asked.

        Args:
            processor: transformers' processor of images and texts.
            text: What stands for one image in its chat template.
            image_token_id: The token that stands for one image token.
            names: The tensors that the image encoder reads, those of them that the processor makes.
            has_markers: Whether what stands for an image is more than its placeholders.
        """
        self._processor = processor
        self.text = text
        self._image_token_id = image_token_id
        self._names = tuple(names)
        self._has_markers = has_markers

    def __call__(self, image: Image.Image) -> ProcessedImage:
        """Returns an image as the processor gives it, one image at a time.

        Raises:
            DataError: The processor refuses it, or leaves no place for it in the text.
        """
        try:
            made = self._processor(text=[self.text], images=[[image]], return_tensors="pt", add_special_tokens=False)
        except Exception as error:  # an image too small or too long for it makes the library raise what it likes
            raise DataError(
                f"the backbone's processor refuses an image of {image.width} x {image.height} pixels: "
                f"{first_line(error)[:200]}"
            ) from error
        (ids,) = torch.as_tensor(made["input_ids"]).long()
        is_place = ids == self._image_token_id
        if not is_place.any():
            raise DataError(
                f"the backbone's processor leaves no place for an image in {self.text!r}: none of its tokens is "
                f"{self._image_token_id}, the image token of its config.json; they do not belong together"
            )
        tensors = {name: torch.as_tensor(made[name]) for name in self._names if name in made}
        return ProcessedImage(ids if self._has_markers else ids[is_place], tensors)

    def settings(self) -> dict[str, Any]:
        """Returns what is set of how pictures are processed, in the processor's own words, as JSON has it."""
        text = json.dumps(self._processor.image_processor.to_dict(), sort_keys=True, default=str)
        settings: dict[str, Any] = json.loads(text)
        return settings

    def fingerprint(self) -> dict[str, Any]:
        """Returns what an adapter records of how its images were processed."""
        text = json.dumps(self.settings(), sort_keys=True)
        return {
            "kind": "backbone",
            "model": type(self._processor).__name__,
            "processor_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
