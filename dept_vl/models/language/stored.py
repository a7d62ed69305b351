"""A backbone's files on disk: where they lie, under which name they can be had again, and what must be among them.

No torch, so that what is missing is said at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_json, read_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED_FILE, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
VOCABULARY_FILES = (
    "tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "sentencepiece.bpe.model", "vocab.txt",
    "tekken.json",
)  # fmt: skip
"""Files that a tokenizer's words come from; one is enough."""

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Files that say how a vision-language model's images are processed; older releases have the second alone."""

BESIDE_WEIGHTS = (
    CONFIG_FILE, "generation_config.json", *VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "merges.txt", "chat_template.jinja", "chat_template.json", *PROCESSOR_FILES,
    "video_preprocessor_config.json",
)  # fmt: skip
"""Files that belong to weights and are taken along with them."""

_WITHOUT_VOCABULARY = ("ByT5Tokenizer",)
"""Tokenizers that need no such file: their tokens are bytes."""

_MAX_TOKENIZER_BYTES = 24 << 20
"""Larger ones (of 256,000 words) are looked at when they are loaded: reading them takes most of a second."""

_MAX_HEADER_BYTES = 100 << 20

_SAME_MODELS = {
    **{f"t5-{size}": f"google-t5/t5-{size}" for size in ("small", "base", "large", "3b", "11b")},
    **{name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")},
    "distilgpt2": "distilbert/distilgpt2",
}
"""Hub ids without an owner, as they were called first -> as they are called now; the hub answers to both."""


def other_name(name: str) -> str | None:
    """Returns the other hub id of a model that has two: ``t5-base`` is ``google-t5/t5-base``."""
    return {**_SAME_MODELS, **{new: old for old, new in _SAME_MODELS.items()}}.get(name)


def resolve(name: str, revision: str | None = None) -> str:
    """Returns the folder or hub id that a backbone's name stands for here.

    Of a model with two hub ids that is the one in the cache, if only the other is asked for; ``~`` is the user's home.

    Raises:
        ConfigError: The packaged T5 is missing, or `name` is a path at which there is no folder.
    """
    if name == DEMO:
        folder = ASSETS / "t5"
        if folder.is_dir():
            return str(folder)
        raise ConfigError(
            "model.backbone: the demo T5 is missing from this installation (dept_vl/assets/demo/t5); install the "
            "package again, or name a T5 such as t5-base"
        )
    name = os.path.expanduser(name)
    if os.path.isfile(name):
        raise ConfigError(
            f"model.backbone: cannot load {name!r}: it is a file, expected a folder with {CONFIG_FILE}, {WEIGHTS_FILE} "
            f"and tokenizer files; `dept-vl convert {name} --out FOLDER` makes one of a .bin or GGUF file"
        )
    if os.path.isdir(name):
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"model.backbone: cannot load {name!r}: no such folder")
    other = other_name(name)
    if other is not None and _cached(name, revision) is None and _cached(other, revision) is not None:
        return other
    return name


def find_folder(name: str, revision: str | None = None) -> Path | None:
    """Returns the folder that holds a backbone's files: its own, or the hub cache's of that revision; None for none.

    Raises:
        ConfigError: As `resolve`.
    """
    source = resolve(name, revision)
    return Path(source) if os.path.isdir(source) else _cached(source, revision)


def recorded_name(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Returns the name under which a backbone can be loaded again, and its revision where that is known.

    A snapshot folder of the hub's cache is called by its hub id, another folder by its whole path, with ``~`` for the
    user's home.
    """
    if name == DEMO:
        return DEMO, None
    if os.path.isdir(os.path.expanduser(name)):
        return recorded_folder(Path(os.path.expanduser(name)))
    folder = _cached(resolve(name, revision), revision)
    origin = None if folder is None else hub_origin(folder)
    return name, revision if origin is None else origin[1]


def recorded_folder(folder: Path) -> tuple[str, str | None]:
    """Returns what `recorded_name` does of a folder, which need not be there yet."""
    path = Path(os.path.abspath(folder))
    return hub_origin(path) or hub_origin(path.resolve()) or (_below_home(path), None)


def check_files(name: str, revision: str | None = None) -> None:
    """Refuses a backbone whose files cannot be used, as far as they lie here and no weights need be read.

    A hub id is looked at in the cache, and only when the hub may not be asked: else its files are still to come.

    Raises:
        ConfigError: No `config.json`, no safetensors weights, no tokenizer, or one with more tokens than embeddings;
            or a vision-language model's without its processor.
    """
    source = resolve(name, revision)
    if not os.path.isdir(source) and not is_offline():
        return
    folder = Path(source) if os.path.isdir(source) else _cached(source, revision)
    if folder is None:
        return  # what loads it says that it cannot be had
    config = read_config(folder, name)
    _check_weights(folder, name)
    if not any((folder / file).is_file() for file in VOCABULARY_FILES) and not _needs_no_vocabulary(folder):
        raise ConfigError(
            f"model.backbone: cannot load {name!r}: no tokenizer there (none of {', '.join(VOCABULARY_FILES)}); "
            "put the files of the tokenizer it was trained with beside its weights"
        )
    if "vision_config" in config and not any((folder / file).is_file() for file in PROCESSOR_FILES):
        raise ConfigError(
            f"model.backbone: cannot load {name!r}: no processor there, which makes a vision-language model's images; "
            f"its folder needs {' or '.join(PROCESSOR_FILES)}"
        )
    tokens, rows = _vocabulary(folder), config.get("vocab_size")
    if tokens is not None and isinstance(rows, int) and tokens[1] >= rows:
        raise too_many_tokens(name, tokens[0], rows)


def too_many_tokens(name: str, tokens: int, rows: int) -> ConfigError:
    """Returns the error that says that a tokenizer gives ids that the model has no embedding for."""
    return ConfigError(
        f"model.backbone: the tokenizer of {name} has {tokens:,} tokens, the model {rows:,} word embeddings (they do "
        "not belong together); give a folder with the tokenizer that the model was trained with"
    )


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Returns the content of a folder's ``config.json``.

    Raises:
        ConfigError: It is missing, or not a JSON object.
    """
    path = folder / CONFIG_FILE
    try:
        config = parse_json(read_file(path, MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        hint = _foreign_files(folder)
        raise ConfigError(f"model.backbone: cannot load {name!r}: {path}: no such file{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"model.backbone: cannot load {name!r}: {path}: {reason}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"model.backbone: cannot load {name!r}: {path}: expected an object of settings")
    return config


def tensor_names(folder: Path) -> set[str]:
    """Returns the names of the tensors in a folder's safetensors weights; only headers are read.

    Raises:
        OSError: A file cannot be read.
        ValueError: One is damaged.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        return set(weight_map(folder / WEIGHTS_INDEX))
    return set(_read_header(folder / WEIGHTS_FILE))


def _read_header(path: Path) -> dict[str, Any]:
    """Returns name -> entry of the tensors in a safetensors file, once it is clear that the file holds all of them.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    with open(path, "rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise ValueError("a pointer of git-lfs and not the weights")
        size = int.from_bytes(start, "little")
        if len(start) < 8 or size > _MAX_HEADER_BYTES:
            raise ValueError("not a safetensors file")
        header = parse_json(file.read(size))
    entries = {key: value for key, value in header.items() if key != "__metadata__"}
    try:
        end = 8 + size + max((value["data_offsets"][1] for value in entries.values()), default=0)
    except (TypeError, KeyError, IndexError, AttributeError):
        raise ValueError("not a safetensors file") from None
    if path.stat().st_size != end:
        raise ValueError(f"has {path.stat().st_size:,} bytes, its header announces {end:,}")
    return entries


def _check_weights(folder: Path, name: str) -> None:
    """Refuses a folder without whole safetensors weights, and says how to get them from what there is."""
    index, path = folder / WEIGHTS_INDEX, folder / WEIGHTS_FILE
    if not path.is_file() and not index.is_file():
        hint = _foreign_files(folder)
        raise ConfigError(f"model.backbone: cannot load {name!r}: no safetensors weights ({WEIGHTS_FILE}) there{hint}")
    try:
        paths = [path]
        if not path.is_file():
            path = index
            paths = [folder / file for file in sorted(set(weight_map(index).values()))]
            missing = [shard.name for shard in paths if not shard.is_file()]
            if missing:
                raise ValueError(f"names {missing[0]}, which is not there ({len(missing)} missing)")
        for path in paths:
            _read_header(path)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"model.backbone: cannot load {name!r}: {path}: {error}; fetch it again") from None


def _foreign_files(folder: Path) -> str:
    """Returns what to say of weights in another format."""
    pickled = [file for file in (PICKLED_INDEX, PICKLED_FILE) if (folder / file).is_file()]
    packed = sorted(path.name for path in folder.glob("*.gguf"))
    if not pickled and not packed:
        return ""
    given = folder if pickled else folder / packed[0]
    why = "a pickle, which may hold code" if pickled else "GGUF"
    return (
        f"; {(pickled + packed)[0]} is {why}, and is not read: turn it into safetensors once, with "
        f"`dept-vl convert {given} --out FOLDER`"
    )


def _needs_no_vocabulary(folder: Path) -> bool:
    try:
        settings = parse_json(read_file(folder / "tokenizer_config.json", MAX_SETTINGS_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("tokenizer_class") in _WITHOUT_VOCABULARY


def _vocabulary(folder: Path) -> tuple[int, int] | None:
    """Returns how many tokens ``tokenizer.json`` has, and the highest id; None where it does not say."""
    try:
        content = parse_json(read_file(folder / "tokenizer.json", _MAX_TOKENIZER_BYTES))
        words = content["model"]["vocab"]
        ids = set(words.values()) if isinstance(words, Mapping) else set(range(len(words)))
        ids |= {entry["id"] for entry in content.get("added_tokens") or ()}
        return len(ids), max(ids)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or the library's to judge
        return None


def weight_map(index: Path) -> dict[str, str]:
    """Returns tensor -> file of an index.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no index, or names a file elsewhere.
    """
    content = parse_json(read_file(index))
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError("no weight_map in it")
    for file in names.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(f"names the file {json.dumps(file)[:80]}, expected one beside it")
    return names


def _cached(name: str, revision: str | None) -> Path | None:
    """Returns the folder of a hub id's snapshot in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    except (HFValidationError, ValueError):  # no hub id at all
        return None
    return Path(found).parent if isinstance(found, str) else None


def fetch_config(name: str, revision: str | None) -> None:
    """Puts the ``config.json`` of a hub id into the cache.

    Raises:
        ConfigError: There is no such model, none that may be read, or the hub cannot be asked.
    """
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(resolve(name, revision), CONFIG_FILE, revision=revision)
    except (OSError, ValueError) as error:
        raise not_loaded(name, revision, error) from None


def not_loaded(name: str, revision: str | None, error: Exception, part: str = "") -> ConfigError:
    """Returns the error that says why a backbone cannot be had.

    Args:
        name: Its folder or hub id.
        revision: Hub revision; None for the newest.
        error: What went wrong.
        part: What of it is missing; empty for all.
    """
    at = f" at revision {revision!r}" if revision else ""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = (f"{first} {more[0]}" if more and first.endswith(":") else first).rstrip(".")
    if "safetensors" in reason and not os.path.isdir(os.path.expanduser(name)):
        return ConfigError(
            f"model.backbone: cannot load {name!r}{at}: it has no safetensors weights on the hub; download its files "
            "and turn them into safetensors once, with `dept-vl convert FOLDER --out NEW`"
        )
    return ConfigError(
        f"model.backbone: cannot load {part + ' of ' if part else ''}{name!r}{at}: {reason}. Give a local folder with "
        "config.json, model.safetensors and tokenizer.json, or a hub id this machine can reach or has cached "
        f"(HF_HUB_OFFLINE must then be unset or the files downloaded before), or {DEMO!r} for the packaged one"
    )


def _below_home(path: Path) -> str:
    home = Path(os.path.expanduser("~"))
    return str("~" / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def is_offline() -> bool:
    """Returns whether the hub may not be asked: ``HF_HUB_OFFLINE=1``."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def hub_origin(folder: Path) -> tuple[str, str] | None:
    """Returns hub id and commit of a snapshot folder of the hub's cache (``models--ORG--NAME/snapshots/COMMIT``)."""
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/"), folder.name
