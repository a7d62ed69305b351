"""The files of a local open_clip folder, as far as they can be judged without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_json, read_file

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_PICKLED_FILES = ("open_clip_pytorch_model.bin", "open_clip_model.bin", "pytorch_model.bin")


def read_folder_config(folder: Path) -> dict[str, Any]:
    """Reads ``open_clip_config.json`` as far as that it describes an image tower.

    Raises:
        ConfigError: It is missing, or describes something else.
    """
    path = folder / CONFIG_FILE
    try:
        config: dict[str, Any] = parse_json(read_file(path, MAX_SETTINGS_BYTES))
        config["model_cfg"]["vision_cfg"]["layers"]
    except FileNotFoundError as error:
        raise ConfigError(_without_config(folder)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not an open_clip config of a CLIP image tower ({error!r})") from error
    return config


def find_weight_file(folder: Path) -> Path:
    """Returns the file of a folder's weights.

    Raises:
        ConfigError: There is none that is read.
    """
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is not None:
        return weights
    pickled = next((name for name in _PICKLED_FILES if (folder / name).is_file()), None)
    hint = f"; {pickled} is: `dept-vl convert {folder} --out FOLDER` turns it into safetensors once" if pickled else ""
    raise ConfigError(f"{folder}: no weights; expected one of {', '.join(WEIGHT_FILES)} (pickles are not read){hint}")


def refuse_weight_file(setting: str, path: str) -> None:
    """Refuses a weight file where a model's name, a folder or a weight tag is expected.

    Raises:
        ConfigError: `path` is a file.
    """
    if Path(path).is_file():
        raise ConfigError(
            f"{setting}: {path}: a weight file alone says neither preprocessing nor activation; of OpenAI's files, "
            f"`dept-vl convert {path} --out FOLDER` makes a folder that does ({CONFIG_FILE}, {WEIGHT_FILES[0]}); give "
            "it as model.image_encoder.model"
        )


def _without_config(folder: Path) -> str:
    path = folder / CONFIG_FILE
    try:
        described = parse_json(read_file(folder / "config.json", MAX_SETTINGS_BYTES))
        names = [str(described.get("model_type")), *map(str, described.get("architectures") or ())]
    except (OSError, ValueError, AttributeError, TypeError):
        names = []
    if any(name.lower().startswith(("clip", "chinese_clip", "siglip")) for name in names):
        return (
            f"{folder}: this is transformers' CLIP format (config.json of type {names[0]!r}), and open_clip's is read "
            f"({CONFIG_FILE} with the weights beside it): name the model as open_clip does, such as "
            "--model.image_encoder.model ViT-B-32 --model.image_encoder.pretrained openai (open_clip.list_pretrained() "
            f"has all), or make a folder of that format: dept-vl convert {folder} --out FOLDER"
        )
    return f"{path}: no such file; a local CLIP folder needs it and the weights beside it"
