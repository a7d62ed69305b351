from dataclasses import replace
from types import SimpleNamespace

import pytest

from data_prep.first_use import demo
from data_prep.first_use.cache import CACHE_VARIABLE
from dept_vl.data.feature_format import finished_stores
from dept_vl.data.features import find_store
from dept_vl.data.manifest import open_split
from dept_vl.errors import DataError
from dept_vl.settings.demo import demo_settings
from dept_vl.settings.load import config_from_tree
from dept_vl.tasks import TASKS, get_task

SMALL = {"num_train": 6, "num_restval": 1, "num_val": 1, "num_test": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "NUM_IMAGES", SMALL)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_made_once_and_found_again():
    folder = demo.demo_data_dir()
    stamp = (folder / "vqa" / "train.parquet").stat().st_mtime_ns
    assert len(open_split(folder, get_task("coco"), "test")) == SMALL["num_test"]
    assert demo.demo_data_dir() == folder
    assert (folder / "vqa" / "train.parquet").stat().st_mtime_ns == stamp


def test_features_of_an_earlier_run_are_made_when_it_asks_for_them():
    """Of before there was a choice about EXIF rotation, which drawn scenes do not have."""
    today = config_from_tree(demo_settings(get_task("vqa"), "dept")).model.image_encoder
    folder = demo.demo_data_dir(today)
    earlier = replace(today, exif="ignore")
    assert len(finished_stores(folder)) == 1
    assert demo.demo_data_dir(earlier) == demo.demo_data_dir(today) == folder
    assert len(finished_stores(folder)) == 2
    stores = [find_store(folder, encoder.known_fingerprint()) for encoder in (today, earlier)]
    assert stores[0].read([1]).equal(stores[1].read([1]))
    demo.demo_data_dir(replace(today, model="RN101"))
    assert len(finished_stores(folder)) == 2


def test_a_half_made_folder_is_made_again():
    folder = demo.demo_data_dir()
    (folder / "done.json").unlink()
    (folder / "vqa" / "val.parquet").unlink()
    assert len(open_split(demo.demo_data_dir(), get_task("vqa"), "val")) == 4


def test_a_task_that_the_scenes_are_not_drawn_for_is_left_out(monkeypatch):
    monkeypatch.setitem(TASKS, "third", replace(get_task("vqa"), name="third", converter="no.such:converter"))
    folder = demo.demo_data_dir()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"raw", "vqa", "coco", "features"}


def test_other_counts_get_a_folder_of_their_own(monkeypatch):
    first = demo.demo_data_dir()
    monkeypatch.setattr(demo, "NUM_IMAGES", {**SMALL, "num_test": 3})
    assert demo.demo_data_dir() != first


def test_several_processes_are_told_to_make_it_first(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("dept_vl.system.processes.process_state", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(DataError, match="without a launcher first"):
        demo.demo_data_dir()


def test_a_place_that_cannot_be_written_names_the_variable(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match="set DEPT_VL_CACHE to a folder"):
        demo.demo_data_dir()
