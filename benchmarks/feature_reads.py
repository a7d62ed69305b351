"""Random reads of cached image features: this package's store, one HDF5 file an image, and a bare memory map.

Usage: python benchmarks/feature_reads.py [--images 2000] [--tokens 36] [--dim 2048] [--batch 64] [--seconds 3]

Files are read from a temporary folder, hence from the page cache: what is compared is the work per read, not the disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from dept_vl.data.feature_writer import FeatureWriter
from dept_vl.data.features import FeatureStore

Read = Callable[[Sequence[int]], object]


def build_store(folder: Path, features: torch.Tensor) -> FeatureStore:
    """Writes the features as this package does."""
    tokens, dim = features.shape[1:]
    fingerprint = {"num_visual_tokens": tokens, "feature_dim": dim, "dtype": "float16"}
    with FeatureWriter(folder, fingerprint, range(len(features))) as writer:
        for plan in writer.pending():
            rows = features[list(plan.image_ids)]
            writer.write(plan, rows, [0] * len(rows))
        return writer.finish()


def build_hdf5(folder: Path, features: torch.Tensor) -> Read:
    """Writes a file an image, as VL-adapter's extractor does, and returns a reader."""
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

    return read


def build_memory_map(path: Path, features: torch.Tensor) -> Read:
    """Writes one bare array and returns a reader that gathers from it: the least there is to do."""
    features.numpy().tofile(path)
    array = np.memmap(path, np.float16, "r", shape=tuple(features.shape))
    return lambda image_ids: torch.from_numpy(np.asarray(array[image_ids]))


def measure(read: Read, images: int, batch: int, seconds: float) -> tuple[float, float]:
    """Returns images read per second in random batches: by the clock, and by the processor time used."""
    rng = np.random.default_rng(0)
    read(list(range(min(images, batch))))
    count = 0
    start, start_cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        read(rng.integers(0, images, batch).tolist())
        count += batch
    return count / (time.perf_counter() - start), count / (time.process_time() - start_cpu)


def main() -> None:
    """Builds the three and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 2000), ("tokens", 36), ("dim", 2048), ("batch", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    features = torch.rand(options.images, options.tokens, options.dim).half()
    size_mib = features.nbytes / 2**20
    print(f"{options.images} images of {options.tokens} x {options.dim} float16, {size_mib:.0f} MiB, page cache warm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readers = {
            "dept_vl feature store": build_store(folder / "store", features).read,
            "bare memory map": build_memory_map(folder / "raw", features),
            "one HDF5 file an image": build_hdf5(folder / "hdf5", features),
        }
        for label, read in readers.items():
            rate, cpu_rate = measure(read, options.images, options.batch, options.seconds)
            print(f"{label:>24}: {rate:10,.0f} images/s {cpu_rate:10,.0f} images per CPU second")


if __name__ == "__main__":
    main()
