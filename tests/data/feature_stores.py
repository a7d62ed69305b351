"""Small feature stores whose content follows from the image ids."""

from pathlib import Path

import torch

from data_prep.feature_writer import FeatureWriter, SkippedImage

FINGERPRINT = {"model": "tiny", "pooled_grid": None, "num_visual_tokens": 3, "feature_dim": 4, "dtype": "float16"}
IDS = [5, 900_000_000_000, 7, 1, 12, 3, 44]


def features_of(image_ids, dtype=torch.float16) -> torch.Tensor:
    """Features a reader can check: they follow from the id."""
    rows = [torch.arange(12, dtype=torch.float64).reshape(3, 4) / 8 + (i % 1009) for i in image_ids]
    return torch.stack(rows).to(dtype) if rows else torch.empty((0, 3, 4), dtype=dtype)


def build(folder: Path, image_ids=IDS, *, skip=(), fingerprint=FINGERPRINT, rows_per_shard=3, stop_after=None):
    """Builds a store, or stops after some shards; returns the store or None."""
    dtype = getattr(torch, fingerprint["dtype"])
    writer = FeatureWriter(folder, fingerprint, image_ids, rows_per_shard=rows_per_shard, allow_skipped=True)
    with writer:
        for number, plan in enumerate(writer.pending()):
            if number == stop_after:
                return None
            kept = [i for i in plan.image_ids if i not in skip]
            skipped = [SkippedImage(i, f"{i}.jpg", "broken") for i in plan.image_ids if i in skip]
            writer.write(plan, features_of(kept, dtype), [100 + i % 7 for i in kept], skipped)
        return writer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}
