"""Images encoded on the fly: those that cannot be read stop a run, or are found before it starts."""

import pytest
import torch

from data_prep.prepare import prepare
from dept_vl.errors import DataError
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.runs.visual_input import open_visual
from dept_vl.settings.schema import DataConfig
from dept_vl.tasks import get_task
from tests.data_prep.raw_files import official_path, write_raw

DEMO_CLIP = OpenClipConfig(model="demo", pooled_grid=None)


@pytest.fixture
def data(tmp_path):
    raw = write_raw(tmp_path / "raw")
    prepare(get_task("vqa"), raw, tmp_path / "data")
    (raw / official_path(5, "train")).write_bytes(b"no image")
    return tmp_path / "data"


def source(data, on_image_error):
    settings = DataConfig(visual_features="encode", on_image_error=on_image_error)
    return open_visual(get_task("vqa"), settings, DEMO_CLIP, data, ["train"], torch.device("cpu"))["train"].source


def test_a_bad_image_stops_when_it_is_read(data):
    stopping = source(data, "stop")
    assert stopping.skipped == frozenset()
    with pytest.raises(DataError, match=r"000000000005.jpg: not an image"):
        stopping.read([5], [official_path(5, "train")])


def test_bad_images_are_found_first_and_said(data, caplog):
    assert source(data, "skip").skipped == {5}
    assert "vqa train: 1 of 3 images cannot be read" in caplog.text
    assert "000000000005.jpg: not an image" in caplog.text
