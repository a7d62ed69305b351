"""What open_clip's own files and a local folder's say of a model, without importing torch or open_clip."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.registry import suggest
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
        tower = config["model_cfg"]["vision_cfg"]
        tower["timm_model_name" if "timm_model_name" in tower else "layers"]
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


def described_tower(model: str, folder: Path | None) -> dict[str, Any]:
    """Returns the ``vision_cfg`` of a model that open_clip describes, or of a local folder.

    Raises:
        ConfigError: The model is unknown here, or its tower is neither a CLIP ResNet or ViT nor a model of timm.
    """
    described = _described_models().get(model) if folder is None else read_folder_config(folder)["model_cfg"]
    if described is None:
        hint = suggest(model, [*_described_models()])
        raise ConfigError(f"model.image_encoder.model: the shape of {model!r} is not known without its files{hint}")
    tower: dict[str, Any] = described["vision_cfg"]
    if not tower.keys() & {"timm_model_name", "width"}:
        raise ConfigError(
            f"model.image_encoder.model: the tower of {model!r} is neither a CLIP ResNet or ViT nor a model of timm"
        )
    return tower


@cache
def _described_models() -> dict[str, dict[str, Any]]:
    """Returns what the installed open_clip describes: model -> ``model_cfg``."""
    spec = find_spec("open_clip")  # importing it takes seconds
    folders = [] if spec is None else [Path(place) / "model_configs" for place in spec.submodule_search_locations or ()]
    found = {path.stem: parse_json(read_file(path)) for folder in folders for path in sorted(folder.glob("*.json"))}
    return {name: described for name, described in found.items() if "vision_cfg" in described}


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
    if any(name.lower().startswith(("clip", "chinese_clip")) for name in names):
        return (
            f"{folder}: this is transformers' CLIP format (config.json of type {names[0]!r}), and open_clip's is read "
            f"({CONFIG_FILE} with the weights beside it): name the model as open_clip does, such as "
            "--model.image_encoder.model ViT-B-32 --model.image_encoder.pretrained openai (open_clip.list_pretrained() "
            f"has all), or make a folder of that format: dept-vl convert {folder} --out FOLDER"
        )
    other = "; kinds timm and transformers read the folders of those libraries" if names else ""
    return f"{path}: no such file; a local CLIP folder needs it and the weights beside it{other}"
