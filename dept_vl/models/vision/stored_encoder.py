"""What image encoders that are a folder, or have a name on the hub, have in common. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.models.vision.settings import LOCAL, MODEL_PATH, ImageEncoderSettings
from dept_vl.strict import STRICT
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_json, read_file

CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

Preprocessing = Literal["own", "resize"]
"""How pictures are brought to an encoder's size: its own way, or both sides squashed so that nothing is cut off."""


@dataclass(frozen=True, config=STRICT)
class StoredEncoderSettings(ImageEncoderSettings):
    """Settings of a kind whose `model` is a local folder or a name.

    Attributes:
        hub_prefix: What may stand before a name on the hub and is no part of it.
        is_sharded: Whether weights may be in several files beside an index.
    """

    hub_prefix: ClassVar[str] = ""
    is_sharded: ClassVar[bool] = False
    preprocessing: Annotated[
        Preprocessing,
        Field(description="'own': as the model was evaluated, which may crop; 'resize': squash both sides"),
    ] = "own"

    @property
    def bare_model(self) -> str:
        """The name or folder without a prefix."""
        return self.model.removeprefix(self.hub_prefix).removeprefix(LOCAL)

    @property
    def folder(self) -> Path | None:
        """The folder that `model` stands for, if one lies there."""
        path = Path(self.bare_model)
        return path if self.model not in MODEL_PATH.words and path.is_dir() else None

    @property
    def label(self) -> str:
        """The name, or the folder's last part."""
        folder = self.folder
        return self.bare_model if folder is None else folder.resolve().name

    def known_fingerprint(self) -> dict[str, Any]:
        """See `ImageEncoderSettings.known_fingerprint`; a folder is called by its last part."""
        return {**super().known_fingerprint(), "model": self.label, "preprocessing": self.preprocessing}

    def check_files(self) -> None:
        """See `ImageEncoderSettings.check_files`."""
        folder = self.folder
        if folder is not None:
            self.check_folder(folder, self.read_config(folder))
        elif Path(self.bare_model).is_file():
            raise ConfigError(
                f"model.image_encoder.model: {self.model} is a file; give the folder that holds {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}: a weight file alone says neither architecture nor preprocessing"
            )
        elif MODEL_PATH.is_local(self.model):
            raise ConfigError(f"model.image_encoder.model: {self.model}: no such folder")

    def check_folder(self, folder: Path, config: dict[str, Any]) -> None:
        """Refuses a folder without safetensors weights; a kind adds what else it needs.

        Args:
            folder: Which.
            config: What is in its ``config.json``.

        Raises:
            ConfigError: There are none.
        """
        files = (WEIGHTS_FILE, WEIGHTS_INDEX) if self.is_sharded else (WEIGHTS_FILE,)
        if any((folder / name).is_file() for name in files):
            return
        pickled = sorted(path.name for suffix in ("bin", "pth", "pt") for path in folder.glob(f"*.{suffix}"))
        hint = f"; {pickled[0]} is a pickle, which may hold code, and is not read" if pickled else ""
        raise ConfigError(
            f"model.image_encoder.model: {folder}: no safetensors weights ({WEIGHTS_FILE}) there{hint}; save the model "
            "again as safetensors"
        )

    def read_config(self, folder: Path) -> dict[str, Any]:
        """Returns what a folder's ``config.json`` says.

        Raises:
            ConfigError: It is missing, or not a JSON object.
        """
        path = folder / CONFIG_FILE
        try:
            config = parse_json(read_file(path, MAX_SETTINGS_BYTES))
        except FileNotFoundError:
            raise ConfigError(
                f"model.image_encoder.model: {path}: no such file; a folder of kind {self.kind} needs it and "
                f"{WEIGHTS_FILE}"
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.image_encoder.model: {path}: {error}") from None
        if not isinstance(config, dict):
            raise ConfigError(f"model.image_encoder.model: {path}: expected an object of settings")
        return config
