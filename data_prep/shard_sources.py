"""What `dept-vl cache-features --shards` and ``--stream`` name, and the encoding of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import torch

from data_prep.encodings import LOOKED_AT, RecordEncoder, grid_encoding, record_encoding
from data_prep.raw.image_shards import ImageShard, open_shards, streamed_shards
from data_prep.shard_cache import ShardCache
from dept_vl.errors import DataError, first_line
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.system.memory import reused_memory
from dept_vl.system.workers import Worker


def find_shards(
    files: Sequence[str] | None, stream: str | None, split: str = "train", column: str | None = None
) -> list[ImageShard]:
    """Returns the shards of files, or of a data set that streams.

    Raises:
        DataError: As `open_shards` and `streamed_shards`, or the data set cannot be had.
    """
    if files is not None or stream is None:
        return open_shards(files or (), column=column)
    import datasets

    path, _, config = stream.partition(":")
    try:
        found = datasets.load_dataset(path, config or None, split=split, streaming=True)
    except Exception as error:  # whatever the hub's client and the readers below it raise
        raise DataError(
            f"--stream {stream}: cannot be read from the hub ({first_line(error)}); check the id"
        ) from error
    return streamed_shards(found, f"{stream.replace('/', '-')}-{split}", column)


def cache_shards(
    encoder: ImageEncoderSettings | RecordEncoder,
    shards: Sequence[ImageShard],
    folder: Path,
    worker: Worker | None = None,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    device: torch.device | None = None,
) -> bool:
    """Encodes a process's share of some shards into a store; see `ShardCache`.

    Args:
        encoder: An image encoder's settings; or a vision-language backbone on the device where it is to compute.
        shards: All of them, in an order that every process has.
        folder: The store's.
        worker: This process's place; None for one alone.
        batch_size: Pictures encoded at a time.
        num_workers: Decoding processes; 0: none.
        on_error: ``"stop"`` at a picture that cannot be read, or ``"skip"`` it.
        device: Where an image encoder runs; None for the CPU.

    Returns:
        Whether the store is finished.

    Raises:
        DataError: As `ShardCache.run`.
        ConfigError: The encoder cannot be loaded.
    """
    if isinstance(encoder, ImageEncoderSettings):
        encoding = grid_encoding(encoder, device or torch.device("cpu"))
    else:
        encoding = record_encoding(encoder, [content for _, content in islice(shards[0].read(), LOOKED_AT)])
    with reused_memory():
        return ShardCache(folder, encoding, shards, batch_size, num_workers, on_error).run(worker or Worker())


def worker_device(environment: Mapping[str, str]) -> torch.device:
    """Returns a GPU where there are some, the one of this process's place on the machine; else the CPU.

    Processes that share shards know nothing of each other, so that no group is opened here.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(environment.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
