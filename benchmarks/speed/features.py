"""Reading cached features at random, and building the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.visual_work import write_clip, write_visual_work
from data_prep.cache_features import cache_features
from data_prep.feature_writer import FeatureWriter
from dept_vl.data.features import FeatureStore
from dept_vl.data.images import open_image
from dept_vl.tasks import get_task

STORE = "dept-vl feature store"
HDF5 = "one HDF5 file an image"
MAP = "raw memory map"
DISK = "the raw file read in order (the disk's own speed)"
CACHE = "dept-vl cache-features"
ENCODE = "CLIP's own encode, tensors in memory"

Read = Callable[[Sequence[int]], object]
Opener = Callable[[], Read]

_BATCH = 64
_TOKENS, _FEATURE_DIM = 36, 2048
_BUILT_BATCHES = 4
"""Of ``--batch-size`` images: with few, the first batch, which nothing can be overlapped with, would count too much."""
_SECONDS = 1.0
"""Of a warm measurement."""
_CHUNK = 8 * 2**20
"""Bytes a read in order, far more than the kernel reads ahead."""


def measure_features(settings: BenchSettings) -> list[Result]:
    """Measures reads with a warm and a cold page cache, and the building of a cache."""
    torch.set_num_threads(settings.threads)
    return [*_measure_reads(settings), _measure_building(settings)]


def _measure_reads(settings: BenchSettings) -> list[Result]:
    images = 256 if settings.shape == "tiny" else 2_000
    features = torch.rand(images, _TOKENS, _FEATURE_DIM).half()
    folder = settings.work_dir / "reads"
    folder.mkdir()
    openers = {
        STORE: _write_store(folder / "store", features),
        HDF5: _write_hdf5(folder / "hdf5", features),
        MAP: _write_memory_map(folder / "raw", features),
    }
    files = {STORE: folder / "store", HDF5: folder / "hdf5", MAP: folder / "raw"}
    _sync()
    results = []
    for kind in ("warm", "cold"):
        one = _measure_cold if kind == "cold" else _measure_warm
        rng = np.random.default_rng(0)
        contestants = [Contestant(name, partial(one, openers[name], files[name], images, rng)) for name in openers]
        if kind == "cold":
            contestants.append(Contestant(DISK, partial(_measure_disk, files[MAP], images)))
        rounds = run_rounds(contestants, settings.rounds, settings.report_round)
        floors = [
            Floor(f"reads/s over one HDF5 file an image, {kind}", STORE, HDF5, 10),
            Floor(f"reads/s against a raw memory map, {kind}", STORE, MAP, 0.8),
        ]
        note = (
            f"random batches of {_BATCH} of {images:,} images of {_TOKENS} x {_FEATURE_DIM} float16, {kind} page cache"
            + ("; each image once" if kind == "cold" else "")
        )
        results.append(Result(f"feature reads, {kind}", "images", rounds, floors, [note]))
    return results


def _measure_cold(opener: Opener, files: Path, images: int, rng: np.random.Generator) -> dict[str, float]:
    evict(files)
    return {"rate": read_once(opener(), rng.permutation(images))}


def _measure_disk(file: Path, images: int) -> dict[str, float]:
    evict(file)
    buffer = bytearray(_CHUNK)
    with open(file, "rb", buffering=0) as opened:
        started = time.perf_counter()
        while opened.readinto(buffer):
            pass
        return {"rate": images / (time.perf_counter() - started)}


def _measure_warm(opener: Opener, files: Path, images: int, rng: np.random.Generator) -> dict[str, float]:
    return {"rate": read_often(opener(), images, rng)}


def _write_store(folder: Path, features: torch.Tensor) -> Opener:
    tokens, dim = features.shape[1:]
    fingerprint = {"num_visual_tokens": tokens, "feature_dim": dim, "dtype": "float16"}
    with FeatureWriter(folder, fingerprint, range(len(features))) as writer:
        for plan in writer.pending():
            rows = features[list(plan.image_ids)]
            writer.write(plan, rows, [0] * len(rows))
        writer.finish()
    return lambda: FeatureStore.open(folder).read


def _write_hdf5(folder: Path, features: torch.Tensor) -> Opener:
    """A file an image, as VL-adapter's extractor writes them."""
    import h5py

    folder.mkdir()
    for image_id, rows in enumerate(features.numpy()):
        with h5py.File(folder / f"{image_id}.h5", "w") as file:
            file["features"] = rows

    def read(image_ids: Sequence[int]) -> torch.Tensor:
        rows = []
        for image_id in image_ids:
            with h5py.File(folder / f"{image_id}.h5") as file:
                rows.append(file["features"][()])
        return torch.from_numpy(np.stack(rows))

    return lambda: read


def _write_memory_map(path: Path, features: torch.Tensor) -> Opener:
    """One bare array, gathered from: the least there is to do."""
    features.numpy().tofile(path)

    def opened() -> Read:
        array = np.memmap(path, np.float16, "r", shape=tuple(features.shape))
        return lambda image_ids: torch.from_numpy(np.asarray(array[image_ids]))

    return opened


def read_often(read: Read, images: int, rng: np.random.Generator) -> float:
    """Returns images read a second in random batches, after one unmeasured pass over all."""
    read_once(read, np.arange(images))
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        read(rng.integers(0, images, _BATCH).tolist())
        count += _BATCH
    return count / (time.perf_counter() - started)


def read_once(read: Read, order: np.ndarray) -> float:
    """Returns images read a second, each once in the given order."""
    started = time.perf_counter()
    for start in range(0, len(order), _BATCH):
        read(order[start : start + _BATCH].tolist())
    return len(order) / (time.perf_counter() - started)


def evict(path: Path) -> None:
    """Asks the kernel to drop a file, or every file of a folder, from the page cache (POSIX)."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _sync() -> None:
    """Writes everything out: a page that is not yet on disk cannot be dropped."""
    os.sync()


def _measure_building(settings: BenchSettings) -> Result:
    tower = "tiny" if settings.shape == "tiny" else "RN101"
    clip = write_clip(settings.work_dir / "clip", tower)
    images = _BUILT_BATCHES * settings.batch_size
    data_dir = settings.work_dir / "build"
    write_visual_work(data_dir, images, rows=images)
    encoder = clip.load()
    pixels = torch.stack([encoder.preprocess(open_image(path)) for path in sorted((data_dir / "images").iterdir())])

    def build() -> dict[str, float]:
        """Two calls: the second, on a finished store, does everything but encode."""
        for store in data_dir.glob("features/*"):
            for file in store.iterdir():
                file.unlink()
            store.rmdir()
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            cache_features(clip, data_dir, get_task("vqa"), batch_size=16, num_workers=1, device="cpu")
            seconds.append(time.perf_counter() - started)
        return {"rate": images / (seconds[0] - seconds[1]), "start_s": seconds[1]}

    def encode() -> dict[str, float]:
        started = time.perf_counter()
        for batch in pixels.split(16):
            encoder(batch)
        return {"rate": images / (time.perf_counter() - started)}

    contestants = [Contestant(CACHE, build), Contestant(ENCODE, encode)]
    encode()
    rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    floors = [Floor("images/s against CLIP's own encode on preloaded tensors", CACHE, ENCODE, 0.9)]
    notes = [
        f"{images} JPEGs of 640 x 480, batches of 16, one decoding process, CLIP {tower} with random weights; the "
        "time of a second call, which finds everything done, is taken off: it is spent once a data set"
    ]
    return Result("cache building", "images", rounds, floors, notes)
