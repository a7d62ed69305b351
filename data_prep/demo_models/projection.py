"""Trains the projection that ships between the demo's CLIP and T5: alone, on captions of drawn scenes in sentences.

By the package's own functions: scenes of the split ``"pretrain"`` are drawn in the official formats, prepared and
encoded, and a run without a method is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dept_vl
from data_prep.cache_features import cache_features
from data_prep.demo_world.files import write_scenes
from data_prep.prepare import prepare
from dept_vl.models.adapter.files import encode_adapter, load_adapter
from dept_vl.models.demo import DEMO
from dept_vl.settings.demo import choose_settings
from dept_vl.system.atomic import atomic_file
from dept_vl.tasks import get_task


@dataclass(frozen=True)
class ProjectionRecipe:
    """What the projection's training depends on beside the demo's settings for captions; that of the shipped one."""

    num_images: int = 3000
    num_steps: int = 800
    seed: int = 5


def train_projection(recipe: ProjectionRecipe, models: Path, out: Path) -> float:
    """Trains the projection and writes it as an adapter without a method, for ``model.frozen_projection``.

    Args:
        recipe: Images, steps and seed.
        models: Folder that holds ``clip/`` and ``t5/``.
        out: Folder to write.

    Returns:
        CIDEr of the captions of validation scenes, 100 times.
    """
    task = get_task("coco")
    held_out = max(20, recipe.num_images // 30)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        settings: dict[str, Any] = {
            "task": task.name,
            "tuner.name": "none",
            "model.backbone": str(models / "t5"),
            "model.image_encoder.model": str(models / "clip"),
            "model.frozen_projection": None,
            "data.dir": str(work / "data"),
            "output_dir": str(work / "run"),
            "seed": recipe.seed,
            "loop.max_steps": recipe.num_steps,
            "loop.eval_every_steps": recipe.num_steps,
            "loop.save_every_steps": recipe.num_steps,
            "loop.trackers": [],
        }
        config = choose_settings(Path(DEMO), settings)
        write_scenes(
            work / "raw", num_train=recipe.num_images, num_restval=0, num_val=held_out, num_test=0, seed=recipe.seed,
            wording="sentences", train_scenes="pretrain",
        )  # fmt: skip
        prepare(task, work / "raw", work / "data")
        cache_features(config.model.image_encoder, work / "data", task, num_workers=0)
        result = dept_vl.train(config)
        tensors, adapter = load_adapter(work / "run")
        # Its models will be the packaged ones, wherever they were while it was trained.
        adapter = replace(adapter, backbone=replace(adapter.backbone, name=DEMO, revision=None), features=None)
        out.mkdir(parents=True, exist_ok=True)
        for name, content in encode_adapter(tensors, adapter).items():
            with atomic_file(out / name) as file:
                file.write(content)
    best = result.progress.best_metric
    assert best is not None
    return best
