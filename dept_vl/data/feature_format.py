"""The files of a feature store: what is in a shard and in the index, and how each is checked.

A store is a folder ``features/<encoder>-<key>/``:

- ``00000.safetensors``, ``00001.safetensors``, ...: tensors ``features`` (images, visual, feature_dim), ``image_ids``
  (images,) int64 and ``image_bytes`` (images,) int64, the size of each image file when it was encoded; where numbers
  are int8 ``scales`` (images, visual) float32. The header's metadata carries the fingerprint and the images of this
  shard that could not be read.
- A ragged store (format 2, of a vision-language backbone) has in a shard the tokens of all its images one after the
  other: ``features`` (tokens, levels, feature_dim), of image i the rows from ``offsets[i]`` to ``offsets[i + 1]``, with
  ``scales`` (tokens, levels); ``ids`` (places,) with ``id_offsets`` likewise; ``grids`` (images, 3) where the backbone
  has them; offsets, ids and grids int64.
- ``index.json``: fingerprint, shape, dtype, and for each shard its name, size, sha256 and image ids. It is written
  last; a folder without it is an unfinished build.
- ``skipped.jsonl``: the images that could not be read, one ``{"image_id", "image", "error"}`` a line.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dept_vl.errors import DataError, NoFeaturesError
from dept_vl.system.bounded_reading import check_regular, parse_json, read_file

FORMAT, RAGGED_FORMAT = 1, 2
SCALES = "scales"
_GRIDS = "grids"
INDEX = "index.json"
LEDGER = "skipped.jsonl"
METADATA_KEY = "dept_vl"
REBUILD = "remove the store's folder and run `dept-vl cache-features` again"
_MAX_HEADER_BYTES = 16 * 2**20
_ITEM_BYTES = {"I8": 1, "F16": 2, "BF16": 2, "F32": 4, "I64": 8}
_SCALE_BYTES = 4
DTYPE_CODES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "int8": "I8"}
"""Torch's name of a dtype to safetensors' code."""


def number_bytes(dtype: str) -> int:
    """Returns the bytes that one number of a stored dtype takes."""
    return _ITEM_BYTES[DTYPE_CODES[dtype]]


def token_bytes(dtype: str, width: int) -> int:
    """Returns the bytes that a token of so many numbers takes, with its scale where it has one."""
    return width * number_bytes(dtype) + (_SCALE_BYTES if dtype == "int8" else 0)


UNRECORDED: Mapping[str, Any] = {"kind": None, "exif": "ignore"}
"""Key of a fingerprint -> what one means that does not have it: earlier versions recorded neither."""


@dataclass(frozen=True)
class Region:
    """Where a tensor's values lie in a file, row-major and little-endian."""

    code: str
    shape: tuple[int, ...]
    start: int  # bytes from the start of the file

    @property
    def num_bytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * _ITEM_BYTES[self.code]


def encode_json(value: Any) -> str:
    """Returns JSON that is the same text for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def fingerprint_key(fingerprint: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits that tell fingerprints apart."""
    return hashlib.sha256(encode_json(fingerprint).encode()).hexdigest()[:12]


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the keys of two fingerprints that differ, with both values; keys of `found` alone may have any."""
    ours, theirs = {**UNRECORDED, **wanted}, {**UNRECORDED, **found}
    return {key: (theirs.get(key), ours[key]) for key in ours if theirs.get(key) != ours[key]}


def describe_differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns `differences` in words, with what to set where a setting alone keeps from using features; "" if none."""
    words = []
    for key, (theirs, ours) in differences(found, wanted).items():
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
            words += [f"{key}.{name} is {theirs.get(name)!r}, wanted {ours.get(name)!r}" for name in names]
        else:
            words.append(f"{key} is {theirs!r}, wanted {ours!r}")
    if list(differences(found, wanted)) == ["exif"]:
        words.append(f"set model.image_encoder.exif={found.get('exif', UNRECORDED['exif'])} to use it as it is")
    return ", ".join(words)


def shard_name(number: int) -> str:
    """Returns the file name of shard `number`."""
    return f"{number:05d}.safetensors"


def read_header(path: Path) -> tuple[dict[str, Region], dict[str, Any]]:
    """Reads and checks the header of a shard; touches no tensor values.

    Returns:
        The tensors' places by name, and the metadata this package put there (empty for a foreign file).

    Raises:
        DataError: The file is missing, is not a safetensors file, or is shorter or longer than its header says.
    """
    try:
        check_regular(path)
        size = path.stat().st_size
        with open(path, "rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, size - 8):
                raise DataError(f"{path}: not a complete safetensors file of {size} bytes; {REBUILD}")
            header = parse_json(file.read(header_bytes))
        metadata = parse_json(header.pop("__metadata__", {}).get(METADATA_KEY, "{}"))
        regions = {name: _region(entry, 8 + header_bytes) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such feature shard; {REBUILD}") from error
    except (OSError, KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: the safetensors header is damaged ({error!r}); {REBUILD}") from error
    end = 8 + header_bytes + sum(region.num_bytes for region in regions.values())
    if end != size:
        raise DataError(f"{path}: has {size} bytes where its header says {end}: cut short or altered; {REBUILD}")
    if any(region.start + region.num_bytes > size for region in regions.values()):
        raise DataError(f"{path}: a tensor lies outside the file; {REBUILD}")
    return regions, metadata


def _region(entry: Mapping[str, Any], base: int) -> Region:
    """Turns one header entry into a `Region`; `base` is where the tensors' values begin in the file."""
    shape = tuple(int(n) for n in entry["shape"])
    begin, end = (int(n) for n in entry["data_offsets"])
    region = Region(entry["dtype"], shape, base + begin)
    if min(shape, default=0) < 0 or begin < 0 or end - begin != region.num_bytes:
        raise ValueError(f"{shape} of {region.code} in bytes {begin} to {end}")
    return region


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the index lists it."""

    file: str
    bytes: int
    sha256: str
    image_ids: tuple[int, ...]
    tokens: int | None = None  # of all its images, in a ragged store


@dataclass(frozen=True)
class StoreIndex:
    """The content of ``index.json``; a ragged store has `levels` and no one number of visual tokens.

    Attributes:
        repeated: Images that are in several shards, alike; None for none.
    """

    fingerprint: dict[str, Any]
    num_visual_tokens: int | None
    feature_dim: int
    dtype: str
    shards: tuple[ShardEntry, ...]
    skipped: dict[int, str]
    levels: int | None = None
    repeated: tuple[int, ...] | None = None

    @property
    def is_ragged(self) -> bool:
        """Whether images have different numbers of tokens."""
        return self.levels is not None


def encode_index(index: StoreIndex) -> str:
    """Returns the text of ``index.json``."""
    version = RAGGED_FORMAT if index.is_ragged else FORMAT
    shards = [_known({**vars(shard), "image_ids": list(shard.image_ids)}) for shard in index.shards]
    skipped = {str(image_id): error for image_id, error in sorted(index.skipped.items())}
    return encode_json(_known({"format": version, **vars(index), "shards": shards, "skipped": skipped})) + "\n"


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def read_index(folder: Path) -> StoreIndex:
    """Reads and checks a store's index.

    Raises:
        DataError: There is none, or it is damaged, of another format, or names files outside the folder.
    """
    path = folder / INDEX
    try:
        raw = parse_json(read_file(path))
        if raw["format"] not in (FORMAT, RAGGED_FORMAT):
            raise DataError(
                f"{path}: feature store of format {raw['format']}, this version reads {FORMAT} and {RAGGED_FORMAT}; "
                f"{REBUILD}"
            )
        is_ragged = raw["format"] == RAGGED_FORMAT
        index = StoreIndex(
            fingerprint=dict(raw["fingerprint"]),
            num_visual_tokens=None if is_ragged else int(raw["num_visual_tokens"]),
            feature_dim=int(raw["feature_dim"]),
            dtype=str(raw["dtype"]),
            shards=tuple(_shard_entry(shard, is_ragged=is_ragged) for shard in raw["shards"]),
            skipped={int(image_id): str(error) for image_id, error in raw["skipped"].items()},
            levels=int(raw["levels"]) if is_ragged else None,
            repeated=tuple(map(_image_id, raw["repeated"])) if "repeated" in raw else None,
        )
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file: there is no feature store here, or its build was stopped; "
            "run `dept-vl cache-features` to make or finish it"
        ) from error
    except (OSError, KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged index ({error!r}); {REBUILD}") from error
    count = index.num_visual_tokens if index.levels is None else index.levels
    if index.dtype not in DTYPE_CODES or count is None or count < 1 or index.feature_dim < 1:
        raise DataError(
            f"{path}: {count} {'levels' if index.is_ragged else 'visual tokens'} of {index.feature_dim} {index.dtype} "
            f"numbers are not a shape a store can have; {REBUILD}"
        )
    return index


def _shard_entry(raw: Mapping[str, Any], *, is_ragged: bool) -> ShardEntry:
    image_ids = tuple(map(_image_id, raw["image_ids"]))
    tokens = int(raw["tokens"]) if is_ragged else None
    return ShardEntry(_plain_name(raw["file"]), int(raw["bytes"]), str(raw["sha256"]), image_ids, tokens)


def finished_stores(data_dir: Path) -> list[Path]:
    """Returns the folders of all finished stores under ``data_dir/features``."""
    return sorted(path.parent for path in (data_dir / "features").glob(f"*/{INDEX}"))


def no_store_fits(data_dir: Path, why: str = "there is no finished store") -> NoFeaturesError:
    """Returns the error that says that a run's features are not there."""
    return NoFeaturesError(
        f"{data_dir / 'features'}: no cached features of the encoder asked for ({why}); "
        f"run: dept-vl cache-features --task TASK --data-dir {data_dir}, with the same model.image_encoder settings"
    )


def _image_id(value: Any) -> int:
    """Returns an image id; whatever is none, or does not fit 64 bits, is a ValueError."""
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError(f"image id {value!r}")
    return value


def _plain_name(name: str) -> str:
    """Returns `name` if it is a shard's file name; an index must not lead readers elsewhere."""
    if not re.fullmatch(r"[0-9]{5,}\.safetensors", name):
        raise ValueError(f"shard name {name!r}")
    return name


def check_shard(path: Path, entry: ShardEntry, index: StoreIndex) -> dict[str, Region]:
    """Checks a shard's size, shapes, dtypes and fingerprint against the index; reads its header only.

    Returns:
        Where its tensors lie, by name.

    Raises:
        DataError: They disagree; the message names the file and both sides.
    """
    regions, metadata = read_header(path)
    size = path.stat().st_size
    if size != entry.bytes:
        raise DataError(f"{path}: has {size} bytes, the index says {entry.bytes}: cut short or altered; {REBUILD}")
    for name, (shape, code) in _layout(entry, index).items():
        region = regions.get(name)
        if region is None and name == _GRIDS:
            continue
        if region is None or not _agrees(region, shape, code):
            found = f"no tensor {name!r}" if region is None else f"{name} {region.shape} {region.code}"
            raise DataError(f"{path}: {found}, the index says {shape} {code}; {REBUILD}")
    if metadata.get("fingerprint") != index.fingerprint:
        raise DataError(f"{path}: was written by another encoder than the index says; {REBUILD}")
    return regions


def _layout(entry: ShardEntry, index: StoreIndex) -> dict[str, tuple[tuple[int | None, ...], str]]:
    """Returns the shape and the code that each tensor of a shard must have; None is any length."""
    code, images = DTYPE_CODES[index.dtype], len(entry.image_ids)
    first = (images, index.num_visual_tokens) if index.levels is None else (entry.tokens, index.levels)
    layout: dict[str, tuple[tuple[int | None, ...], str]] = {"features": ((*first, index.feature_dim), code)}
    if index.dtype == "int8":
        layout[SCALES] = (first, "F32")
    if index.levels is not None:
        layout |= dict.fromkeys(("offsets", "id_offsets"), ((images + 1,), "I64"))
        layout |= {"ids": ((None,), "I64"), _GRIDS: ((images, 3), "I64")}
    return layout


def _agrees(region: Region, shape: tuple[int | None, ...], code: str) -> bool:
    pairs = zip(region.shape, shape, strict=False)
    return region.code == code and len(region.shape) == len(shape) and all(b in (None, a) for a, b in pairs)
