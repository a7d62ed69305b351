"""What several runs of one process share: frozen backbone, tokenizer, visual input and prepared rows, loaded once.

Only what no run changes is shared, so that a run in a session equals, to the bit, the same run in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch

from dept_vl.data.manifest import SplitInfo, open_split
from dept_vl.errors import ConfigError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import LoadedBackbone, backbone_settings, open_backbone
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.visual_input import VisualInput, open_own_images, open_visual
from dept_vl.settings.schema import DataConfig
from dept_vl.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset


class Session:
    """Loads each frozen thing once. Keep one as long as its runs go on, and drop it with them.

    One backbone is kept at a time: runs that alternate between two load them again and again, and never hold both.

    Attributes:
        callbacks: Given to every run of the session.
        lock: Held while its frozen models answer: a method acts inside them, and threads must not see each other's.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        """Starts with nothing loaded."""
        self.callbacks = tuple(callbacks)
        self.lock = RLock()
        self._backbone: tuple[dict[str, Any], LoadedBackbone] | None = None
        self._encoders: dict[tuple[ImageEncoderSettings, str], ImageEncoder] = {}
        self._visual: dict[tuple[Any, ...], Mapping[str, VisualInput]] = {}
        self._own_images: dict[tuple[ImageEncoderSettings, str], VisualInput] = {}
        self._rows: dict[tuple[Any, ...], Dataset] = {}
        self._precision: str | None = None
        self._device: torch.device | None = None

    def backbone(self, model: ModelConfig) -> LoadedBackbone:
        """Returns the frozen backbone and its tokenizer, in evaluation mode.

        Raises:
            ConfigError: It cannot be loaded.
        """
        settings = backbone_settings(model)
        if self._backbone is None or self._backbone[0] != settings:
            self._backbone = None  # frees the one before it
            self._backbone = (settings, open_backbone(model))
        backbone = self._backbone[1]
        backbone[0].eval()
        return backbone

    def visual(
        self,
        task: Task,
        data: DataConfig,
        encoder: ImageEncoderSettings,
        data_dir: Path,
        splits: Sequence[str],
        device: torch.device,
    ) -> Mapping[str, VisualInput]:
        """Returns the visual input of some splits, as `open_visual` opens it.

        Raises:
            DataError: As `open_visual`.
        """
        settings = (data.visual_features, data.feature_dir, data.image_dir, data.on_image_error, encoder)
        key = (data_dir, *(SplitInfo.of(task, split) for split in splits), *settings, str(device))
        if key not in self._visual:
            running = self._encoder(encoder, device) if data.visual_features == "encode" else None
            self._visual[key] = open_visual(task, data, encoder, data_dir, splits, device, running)
        return self._visual[key]

    def _encoder(self, settings: ImageEncoderSettings, device: torch.device) -> ImageEncoder:
        """Returns a frozen image encoder, which several tasks share."""
        key = (settings, str(device))
        if key not in self._encoders:
            self._encoders[key] = settings.load(device)
        return self._encoders[key]

    def own_images(self, encoder: ImageEncoderSettings, device: torch.device) -> VisualInput:
        """Returns visual input for images of the user's own.

        Raises:
            ConfigError: As `open_own_images`.
        """
        key = (encoder, str(device))
        if key not in self._own_images:
            self._own_images[key] = open_own_images(encoder, device)
        return self._own_images[key]

    def rows(self, task: Task, data_dir: Path, split: str) -> Dataset:
        """Returns a prepared split, memory-mapped.

        Raises:
            DataError: As `open_split`.
        """
        key = (data_dir, SplitInfo.of(task, split))
        if key not in self._rows:
            self._rows[key] = open_split(data_dir, task, split)
        return self._rows[key]

    def check_device(self, device: torch.device) -> None:
        """Refuses a second device: the frozen models are on one.

        Raises:
            ConfigError: Earlier runs of the session are on another one.
        """
        if self._device not in (None, device):
            raise ConfigError(
                f"device: the frozen models of this session are on {str(self._device)!r}, and not on {str(device)!r}; "
                "open another Session for it"
            )
        self._device = device

    def check_precision(self, precision: str) -> None:
        """Refuses a second precision: accelerate fixes it once a process.

        Raises:
            ConfigError: An earlier run of the session had another one.
        """
        if self._precision not in (None, precision):
            raise ConfigError(
                f"loop.precision: earlier runs of this process were {self._precision!r}, this one is {precision!r}; "
                "start another process for it"
            )
        self._precision = precision
