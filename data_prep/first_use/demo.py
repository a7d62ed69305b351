"""The embedded demo's data: scenes drawn, prepared and encoded on first use by the ordinary commands' functions."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from data_prep import demo_world
from data_prep.demo_world.files import DRAWN_TASKS, write_scenes
from data_prep.first_use.cache import cache_root, making, refuse_making
from data_prep.prepare import prepare
from dept_vl.data.feature_format import differences, finished_stores, read_index
from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.settings.demo import demo_file, demo_settings
from dept_vl.settings.load import config_from_tree
from dept_vl.system.atomic import write_json
from dept_vl.tasks import get_task

logger = logging.getLogger(__name__)

NUM_IMAGES: dict[str, Any] = {"num_train": 3000, "num_restval": 200, "num_val": 200, "num_test": 500}
SEED = 0

_DONE = "done.json"


def demo_data_dir(encoder: ImageEncoderSettings | None = None, *, may_make: bool = True) -> Path:
    """Returns the folder of the demo's prepared data, made on the first call (about 20 seconds on two CPU cores).

    It lies in ``$DEPT_VL_CACHE``, by default ``~/.cache/dept_vl``, under a name that depends on everything it is made
    from: another version of the scenes or of the packaged CLIP gets a folder of its own.

    Args:
        encoder: Whose features are to be there. The packaged CLIP's are made when they are first asked for: those of a
            run of before there was a choice about EXIF rotation are others than today's.
        may_make: Whether what is not there is made.

    Raises:
        NotMadeError: It is not there, and nothing may be made.
        DataError: The folder cannot be written, or several processes were launched before it was made.
    """
    folder = cache_root() / f"demo-{_key()}"
    encoder = encoder or config_from_tree(demo_settings(get_task("vqa"), "dept")).model.image_encoder
    if not (folder / _DONE).is_file() or (encoder.model == DEMO and not _has_features(folder, encoder)):
        refuse_making(folder, "`dept-vl cache-features --task vqa --data-dir demo`", may_make=may_make)
        _make(folder, encoder)
    return folder


def _has_features(folder: Path, encoder: ImageEncoderSettings) -> bool:
    wanted = encoder.known_fingerprint()
    return any(not differences(read_index(store).fingerprint, wanted) for store in finished_stores(folder))


def _make(folder: Path, encoder: ImageEncoderSettings) -> None:
    from data_prep.cache_features import cache_features  # imports torch

    with making(folder, "make the demo's data"):
        if not (folder / _DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("drawing the demo's scenes into %s (once)", folder)
            write_scenes(folder / "raw", **NUM_IMAGES, seed=SEED)
            for name in DRAWN_TASKS:
                prepare(get_task(name), folder / "raw", folder)
            write_json(folder / _DONE, {"seed": SEED, **NUM_IMAGES})
        if encoder.model == DEMO and not _has_features(folder, encoder):
            cache_features(encoder, folder, get_task("vqa"))


def _key() -> str:
    """Returns a name for what the data are made from: counts, seed, the drawing code and the packaged CLIP."""
    digest = hashlib.sha256(json.dumps([SEED, NUM_IMAGES]).encode())
    world = Path(demo_world.__file__).parent
    sources = [*world.glob("*.py"), *(ASSETS / "clip").glob("*"), demo_file(get_task("vqa"))]
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
