"""What several runs of one process share: frozen backbone, tokenizer, visual input and prepared rows, loaded once.

Only what no run changes is shared, so that a run in a session equals, to the bit, the same run in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dept_vl.errors import ConfigError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import LoadedBackbone, open_backbone
from dept_vl.runs.open import VisualInput, open_rows, open_visual
from dept_vl.settings.schema import TrainConfig


class Session:
    """Loads each frozen thing once. Keep one as long as its runs go on, and drop it with them.

    One backbone is kept at a time: runs that alternate between two load them again and again, and never hold both.
    """

    def __init__(self) -> None:
        """Starts with nothing loaded."""
        self._backbone: tuple[ModelConfig, LoadedBackbone] | None = None
        self._visual: dict[tuple[Any, ...], dict[str, VisualInput | None]] = {}
        self._rows: dict[tuple[Any, ...], Any] = {}
        self._precision: str | None = None

    def backbone(self, model: ModelConfig) -> LoadedBackbone:
        """Returns the frozen backbone and its tokenizer, in evaluation mode.

        Raises:
            ConfigError: It cannot be loaded.
        """
        if self._backbone is None or self._backbone[0] != model:
            self._backbone = None  # frees the one before it
            self._backbone = (model, open_backbone(model))
        backbone = self._backbone[1]
        backbone[0].eval()
        return backbone

    def visual(
        self, config: TrainConfig, data_dir: Path, splits: Sequence[str], device: torch.device
    ) -> dict[str, VisualInput | None]:
        """Returns the visual input of some splits, as `dept_vl.runs.open.open_visual` opens it.

        Raises:
            DataError: As `open_visual`.
        """
        data = config.data
        settings = (data.visual_features, data.feature_dir, data.image_dir, config.model.clip)
        key = (data_dir, config.task, config.data.protocol, *settings, tuple(splits), str(device))
        if key not in self._visual:
            self._visual[key] = open_visual(config, data_dir, splits, device)
        return self._visual[key]

    def rows(self, config: TrainConfig, data_dir: Path, split: str) -> Any:
        """Returns a prepared split, memory-mapped.

        Raises:
            DataError: As `dept_vl.runs.open.open_rows`.
        """
        key = (data_dir, config.task, config.data.protocol, split)
        if key not in self._rows:
            self._rows[key] = open_rows(config, data_dir, split)
        return self._rows[key]

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
