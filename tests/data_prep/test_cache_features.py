"""Encoding every image once: the same numbers as the encoder's, and nothing lost to a kill or a bad image."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from data_prep.cache_features import cache_features, collect_images, find_place, store_name
from data_prep.demo_world.files import write_scenes
from data_prep.prepare import prepare
from dept_vl.data.features import FeatureStore, find_store
from dept_vl.data.images import open_image
from dept_vl.data.visual import CachedFeatures
from dept_vl.errors import CheckpointError, DataError
from dept_vl.models.demo import DEMO
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.runs.visual_input import VisualInput
from dept_vl.tasks import get_task
from tests.data.feature_stores import contents
from tests.data_prep.raw_files import official_path, write_json, write_raw
from tests.models.vision.open_clip.folders import RESNET, VIT, save_clip

ROOT = Path(__file__).parents[2]
SPLIT_OF = {i: ("train", "restval", "val", "test")[i % 4] for i in range(1, 24)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> OpenClipConfig:
    return OpenClipConfig(model=str(save_clip(tmp_path_factory.mktemp("clip") / "tiny-vit", VIT)), pooled_grid=2)


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path / "raw", SPLIT_OF)


@pytest.fixture
def data(raw, tmp_path) -> Path:
    prepare(get_task("vqa"), raw, tmp_path / "data")
    return tmp_path / "data"


def cache(clip: OpenClipConfig, data: Path, task: str = "vqa", **options) -> FeatureStore:
    options = {"batch_size": 4, "num_workers": 0, "device": "cpu", "rows_per_shard": 5, **options}
    return FeatureStore.open(cache_features(clip, data, get_task(task), **options))


def test_every_image_of_every_split_has_the_encoders_features(clip, data, raw):
    store = cache(clip, data)
    assert store.image_ids.tolist() == sorted(SPLIT_OF)
    encoder = clip.load()
    for image_id, split in SPLIT_OF.items():
        pixels = encoder.preprocess(open_image(raw / official_path(image_id, split)))
        expected = encoder(pixels[None])
        torch.testing.assert_close(store.read([image_id]).float(), expected, rtol=1e-3, atol=1e-3)
    assert store.dtype == torch.float16
    assert store.fingerprint == encoder.fingerprint
    assert store.folder.name.startswith("tiny-vit-")
    assert find_store(data, clip.known_fingerprint()).folder == store.folder
    store.verify()


def test_an_adapter_of_an_earlier_fingerprint_takes_the_features_of_today(data, tmp_path):
    """A ResNet's was over its batch norms' counters too, which no feature depends on."""
    settings = OpenClipConfig(model=str(save_clip(tmp_path / "clip", RESNET)), pooled_grid=None)
    encoder = settings.load()
    assert encoder.earlier_fingerprint != encoder.fingerprint
    store = cache(settings, data)
    given = VisualInput(CachedFeatures(store), None, store.feature_dim, encoder.fingerprint, settings)
    given.check_trained_on(encoder.earlier_fingerprint, tmp_path)
    with pytest.raises(CheckpointError, match=r"weights_sha256: trained on 'x', given"):
        given.check_trained_on({**encoder.fingerprint, "weights_sha256": "x"}, tmp_path)


def test_a_store_begun_under_an_earlier_fingerprint_is_the_encoders_place(data, tmp_path):
    settings = OpenClipConfig(model=str(save_clip(tmp_path / "clip", RESNET)), pooled_grid=None)
    encoder = settings.load()
    new = cache(settings, data)
    assert new.fingerprint == encoder.fingerprint
    earlier = new.folder.with_name(store_name(settings.label, encoder.earlier_fingerprint))
    assert find_place(data / "features", settings.label, encoder) == (encoder.fingerprint, new.folder)
    new.folder.rename(earlier)
    assert find_place(data / "features", settings.label, encoder) == (encoder.earlier_fingerprint, earlier)


def test_a_batch_of_the_same_images_gives_the_very_same_numbers(clip, data, raw):
    """Cached features are bit for bit those of the encoder on the same batch: training without a cache can match."""
    store = cache(clip, data)
    encoder = clip.load()
    ids = sorted(SPLIT_OF)[:4]  # the first batch of the first shard
    pixels = torch.stack([encoder.preprocess(open_image(raw / official_path(i, SPLIT_OF[i]))) for i in ids])
    assert torch.equal(store.read(ids).float(), encoder(pixels))


def test_workers_change_nothing(clip, data):
    alone = contents(cache(clip, data).folder)
    for path in sorted((data / "features").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert contents(cache(clip, data, num_workers=2).folder) == alone


def test_a_second_task_on_the_same_images_adds_the_missing_ones(clip, data, raw):
    before = cache(clip, data)
    bytes_before = contents(before.folder)
    prepare(get_task("coco"), raw, data)
    assert contents(cache(clip, data, "coco").folder) == bytes_before
    more = {**SPLIT_OF, 40: "train", 41: "val"}
    write_raw(raw, more)
    prepare(get_task("coco"), raw, data.parent / "more")
    os.replace(data / "coco", data / "old")
    os.replace(data.parent / "more" / "coco", data / "coco")
    store = cache(clip, data, "coco")
    assert store.folder == before.folder
    assert store.image_ids.tolist() == sorted(more)
    assert torch.equal(store.read(sorted(SPLIT_OF)), before.read(sorted(SPLIT_OF)))


def test_pictures_are_turned_as_exif_says_or_not_in_stores_of_their_own(clip, data, raw):
    path = raw / official_path(6, SPLIT_OF[6])
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(path) as image:
        image.save(path, quality=95, exif=exif)
    features = {}
    for setting in ("ignore", "apply"):
        settings = replace(clip, exif=setting)
        encoder, store = settings.load(), cache(settings, data)
        assert store.fingerprint.get("exif") == (None if setting == "ignore" else "apply")
        features[setting] = store.read([6]).float()
        expected = encoder(encoder.preprocess(open_image(path, exif=setting))[None])
        torch.testing.assert_close(features[setting], expected, rtol=1e-3, atol=1e-3)
        assert find_store(data, settings.known_fingerprint()).folder == store.folder
    assert not torch.allclose(features["ignore"], features["apply"], atol=1e-2)
    assert len(list((data / "features").iterdir())) == 2


def test_another_encoder_gets_its_own_store(clip, data):
    first = cache(clip, data)
    second = cache(OpenClipConfig(model=clip.model, pooled_grid=None), data)
    assert first.folder != second.folder
    assert (first.num_visual_tokens, second.num_visual_tokens) == (4, 16)


def test_a_corrupt_image_stops_with_its_path(clip, data, raw):
    path = raw / official_path(6, SPLIT_OF[6])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{path.name}: damaged or truncated image .*\(image 6\); `--on-error skip`"):
        cache(clip, data)
    (store,) = (data / "features").iterdir()
    assert not (store / "index.json").exists()
    path.write_bytes(whole)
    assert len(cache(clip, data)) == len(SPLIT_OF)


def test_corrupt_images_can_be_skipped_and_mended(clip, data, raw):
    path, gone = raw / official_path(6, SPLIT_OF[6]), raw / official_path(9, SPLIT_OF[9])
    whole, other = path.read_bytes(), gone.read_bytes()
    path.write_bytes(b"not an image")
    gone.unlink()
    store = cache(clip, data, on_error="skip")
    assert sorted(store.skipped) == [6, 9]
    assert len(store) == len(SPLIT_OF) - 2
    ledger = [json.loads(line) for line in (store.folder / "skipped.jsonl").read_text().splitlines()]
    assert [(e["image_id"], e["image"]) for e in ledger] == [(6, str(path)), (9, str(gone))]
    assert "not an image" in ledger[0]["error"]
    path.write_bytes(whole)
    gone.write_bytes(other)
    store = cache(clip, data)
    assert store.skipped == {}
    assert len(store) == len(SPLIT_OF)


def test_a_replaced_image_is_noticed(clip, data, raw):
    cache(clip, data)
    path = raw / official_path(6, SPLIT_OF[6])
    path.write_bytes((raw / official_path(7, SPLIT_OF[7])).read_bytes())
    with pytest.raises(DataError, match=rf"{path.name}: has .* bytes, but .* when image 6 was encoded: .* replaced"):
        cache(clip, data)


def test_the_size_is_said_first_and_refused_beyond_the_disk(clip, data, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(DataError, match=r"tiny-vit-\w+: 23 images of 4 x 32 float16 need 5.75 KiB, and its disk has"):
        cache(clip, data)
    assert not list((data / "features").rglob("*.safetensors"))
    monkeypatch.undo()
    store = cache(clip, data)
    assert any("5.75 KiB to write for 23 images of 4 x 32 float16" in message for message in caplog.messages)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert cache(clip, data).folder == store.folder, "nothing is left to write"


def test_images_elsewhere(clip, data, raw, tmp_path):
    os.replace(raw, tmp_path / "moved")
    with pytest.raises(DataError, match="no such image file"):
        cache(clip, data)
    assert len(cache(clip, data, image_dir=tmp_path / "moved")) == len(SPLIT_OF)


def test_an_unprepared_task_is_named(clip, tmp_path):
    with pytest.raises(DataError, match=r"vqa/train.parquet: no such prepared split; run: dept-vl prepare"):
        cache(clip, tmp_path)


def test_images_are_collected_once_over_all_splits(data, raw):
    assert collect_images(data, get_task("vqa")) == {i: raw / official_path(i, SPLIT_OF[i]) for i in sorted(SPLIT_OF)}


def test_progress_is_shown(clip, data, caplog, monkeypatch):
    monkeypatch.setattr("dept_vl.system.progress.LINE_EVERY_S", 0.0)
    caplog.set_level(logging.INFO)
    cache(clip, data)
    last = re.compile(r"encode: 23 of 23 images, [\d.,]+ images/s, 0 s left, memory .*")
    assert any(last.fullmatch(message) for message in caplog.messages)


def test_drawn_scenes_through_the_packaged_encoder(tmp_path):
    """The demo's way: scenes in the official formats, `prepare` for both tasks, one store for both."""
    write_scenes(tmp_path / "raw", num_train=4, num_restval=2, num_val=2, num_test=2, seed=3)
    vqa = prepare(get_task("vqa"), tmp_path / "raw", tmp_path / "data")
    coco = prepare(get_task("coco"), tmp_path / "raw", tmp_path / "data")
    assert {s: c.images for s, c in vqa.splits.items()} == {s: c.images for s, c in coco.splits.items()}
    assert coco.splits["train"].images == 6
    demo = OpenClipConfig(model=DEMO, preprocessing="clip", pooled_grid=None)
    store = cache(demo, tmp_path / "data")
    assert len(store) == 10
    assert cache(demo, tmp_path / "data", "coco").folder == store.folder


def test_photographs_through_the_packaged_encoder(photographs, tmp_path):
    """Every photograph of the test images has features, under its own id."""
    raw, captions = tmp_path / "raw", photographs.read("captions_images.json")
    write_json(raw / "dataset_coco.json", {"images": photographs.records})
    write_json(raw / "captions_val2014.json", captions)
    write_json(raw / "captions_train2014.json", {"images": [], "annotations": []})
    prepare(get_task("coco"), raw, tmp_path / "data", images=photographs.folder)
    demo = OpenClipConfig(model=DEMO, preprocessing="clip", pooled_grid=None)
    store = cache(demo, tmp_path / "data", "coco", rows_per_shard=40, batch_size=8)
    expected = {r["cocoid"] for r in photographs.records} & {i["id"] for i in captions["images"]}
    assert store.image_ids.tolist() == sorted(expected)
    encoder = demo.load()
    for image_id in sorted(expected)[::20]:
        (file, *_) = sorted(photographs.folder.rglob(f"*{image_id:012d}.jpg"))
        features = encoder(encoder.preprocess(open_image(file))[None])
        torch.testing.assert_close(store.read([image_id]).float(), features, rtol=2e-3, atol=2e-3)


# --- kills and processes ----------------------------------------------------------------------------------------

BUILD = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from data_prep.cache_features import cache_features
from data_prep.feature_writer import FeatureWriter
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.runs.visual_input import VisualInput
from dept_vl.system.processes import leave_launch
from dept_vl.tasks import get_task
data, model, seconds_a_shard = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
write = FeatureWriter.write
def slow(self, *args):
    time.sleep(seconds_a_shard)
    write(self, *args)
    with open(data.with_name("shards-" + os.environ.get("RANK", "0")), "a") as file:
        file.write("x")
FeatureWriter.write = slow
clip = OpenClipConfig(model=model, pooled_grid=2)
if __name__ == "__main__":
    data.with_name("pid-" + os.environ.get("RANK", "0")).write_text(str(os.getpid()))
    cache_features(clip, data, get_task("vqa"), batch_size=4, num_workers=1, device="cpu", rows_per_shard=5)
    leave_launch()
"""


def launch_two(clip, data, seconds_a_shard: float) -> subprocess.Popen:
    """Starts the build in two processes."""
    script = data.with_name("build.py")
    script.write_text(BUILD)
    # `accelerate launch` starts several processes on GPUs only (or by MPI); these set the same variables
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launch, str(script), str(data), clip.model, str(seconds_a_shard)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_shards(child: subprocess.Popen, data: Path, shards: int) -> None:
    deadline = time.monotonic() + 600
    while len(list(data.glob("features/*/*.safetensors"))) < shards or not list(data.glob("features/*")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [0, 1, 3])
def test_killed_mid_build_and_resumed_gives_the_bytes_of_an_unbroken_run(clip, data, tmp_path, shards):
    whole = contents(cache(clip, data).folder)
    os.replace(data / "features", tmp_path / "unbroken")
    child = subprocess.Popen([sys.executable, "-c", BUILD, str(data), clip.model, "0.4"], cwd=ROOT)
    wait_for_shards(child, data, shards)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (folder,) = (data / "features").iterdir()
    assert not (folder / "index.json").exists()
    assert contents(cache(clip, data).folder) == whole  # waits for the dead build's workers to let go of the lock


@pytest.mark.distributed
def test_two_processes_share_the_work(clip, data, tmp_path):
    whole = contents(cache(clip, data).folder)
    os.replace(data / "features", tmp_path / "one-process")
    done = launch_two(clip, data, 0)
    _, printed = done.communicate(timeout=600)
    assert done.returncode == 0, printed
    (folder,) = (data / "features").iterdir()
    assert contents(folder) == whole
    assert [(tmp_path / f"shards-{rank}").read_text() for rank in (0, 1)] == ["xxx", "xx"]


@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_ends_the_launch_and_the_next_one_finishes_its_work(clip, data, tmp_path, rank):
    whole = contents(cache(clip, data).folder)
    os.replace(data / "features", tmp_path / "one-process")
    broken = launch_two(clip, data, 0.5)
    wait_for_shards(broken, data, 1)
    os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGKILL)
    _, printed = broken.communicate(timeout=600)
    assert broken.returncode != 0, printed
    (folder,) = (data / "features").iterdir()
    assert not (folder / "index.json").exists()
    done = launch_two(clip, data, 0)
    _, printed = done.communicate(timeout=600)
    assert done.returncode == 0, printed
    assert contents(folder) == whole
