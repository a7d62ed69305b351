"""Shards of pictures to a store: by any number of processes, killed or not, the bytes of one; and what is refused."""

import hashlib
import io
import json
import os
import signal
import tarfile
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data_prep.cache_features import cache_features
from data_prep.encodings import grid_encoding
from data_prep.prepare import prepare
from data_prep.raw.image_shards import open_shards, streamed_shards
from data_prep.raw.row_images import image_number
from data_prep.shard_sources import cache_shards, find_shards
from dept_vl.cli import main
from dept_vl.data.features import FeatureStore, open_store
from dept_vl.data.images import open_image
from dept_vl.data.manifest import split_images
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.system.workers import Worker, find_worker
from dept_vl.tasks.declared import make_task
from dept_vl.tasks.splits import SPLITS
from tests.data_prep.own_rows import declare
from tests.models.vision.open_clip.folders import VIT, save_clip
from tests.models.vision_language_folders import save_tiny_vlm


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return OpenClipConfig(model=str(save_clip(tmp_path_factory.mktemp("clip") / "tiny-vit", VIT)), pooled_grid=2)


def picture(seed, size=(8, 6)):
    """The PNG of a few coloured squares."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def write_tar(path, pictures):
    """A shard as webdataset writes it: samples of a picture, a text and a record."""
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(pictures):
            for suffix, data in (("png", content), ("txt", b"a caption"), ("json", b"{}")):
                member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def number_of(content):
    return image_number(hashlib.sha256(content).hexdigest())


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def tars(tmp_path):
    """Five shards of seven pictures."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for shard in range(5):
        write_tar(folder / f"{shard:05d}.tar", [picture(10 * shard + n) for n in range(7)])
    return folder


def cached(clip, files, out, worker=None, **options):
    return cache_shards(clip, open_shards([str(files)]), out, worker, **{"batch_size": 4, **options})


def test_every_picture_has_the_encoders_features_under_the_number_of_its_content(clip, tars, tmp_path):
    assert cached(clip, tars / "*.tar", tmp_path / "store")
    store = FeatureStore.open(tmp_path / "store")
    store.verify()
    assert len(store) == 35
    encoder = clip.load()
    for seed in (0, 13, 46):
        content = picture(seed)
        expected = encoder(encoder.preprocess(open_image(content))[None])
        torch.testing.assert_close(store.read([number_of(content)]).float(), expected, rtol=1e-3, atol=1e-3)
    names = sorted(path.name for path in (tmp_path / "store").iterdir())
    shards = [f"{n:05d}" for n in range(5)]
    assert names == sorted(
        [*(f"{n}.done" for n in shards), *(f"{n}.safetensors" for n in shards), "index.json", "skipped.jsonl"]
    )


def test_workers_share_the_shards_and_leave_the_bytes_of_one(clip, tars, tmp_path):
    cached(clip, tars / "*.tar", tmp_path / "one")
    ended = [cached(clip, tars / "*.tar", tmp_path / "three", Worker(rank, 3)) for rank in (2, 0, 1)]
    assert ended == [False, False, True]
    cached(clip, tars / "*.tar", tmp_path / "decoded", num_workers=2)
    assert contents(tmp_path / "three") == contents(tmp_path / "one") == contents(tmp_path / "decoded")
    before = contents(tmp_path / "three")
    assert cached(clip, tars / "*.tar", tmp_path / "three")
    assert contents(tmp_path / "three") == before


def test_parquet_with_bytes_and_with_paths_and_a_stream_give_the_same_features(clip, tmp_path):
    pictures = [picture(seed) for seed in range(6)]
    (tmp_path / "images").mkdir()
    for number, content in enumerate(pictures):
        (tmp_path / "images" / f"{number}.png").write_bytes(content)
    held = pa.array([{"bytes": content, "path": None} for content in pictures])
    pq.write_table(pa.table({"caption": ["a"] * 6, "image": held}), tmp_path / "held.parquet")
    plain = pa.table({"jpg": pa.array(pictures, pa.binary()), "url": ["u"] * 6})
    pq.write_table(plain, tmp_path / "plain.parquet")
    pq.write_table(pa.table({"file": [f"images/{n}.png" for n in range(6)]}), tmp_path / "named.parquet")
    for name, column in (("held", None), ("plain", None), ("named", "file")):
        shards = open_shards([str(tmp_path / f"{name}.parquet")], column=column)
        assert shards[0].count() == 6
        assert cache_shards(clip, shards, tmp_path / name, batch_size=4)
    import datasets

    files = [str(tmp_path / "held.parquet")]
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    for name, found in (("stream", stream), ("decoded", stream.cast_column("image", datasets.Image()))):
        shards = streamed_shards(found, "rows")
        assert [shard.name for shard in shards] == ["rows-00000"]
        assert cache_shards(clip, shards, tmp_path / name, batch_size=4)
    wanted = [number_of(content) for content in pictures]
    expected = FeatureStore.open(tmp_path / "held").read(wanted)
    for name in ("plain", "named", "stream", "decoded"):
        assert torch.equal(FeatureStore.open(tmp_path / name).read(wanted), expected)


def test_a_task_of_one_s_own_finds_its_pictures_in_the_store(clip, tmp_path):
    rows = [{"image": picture(n), "question": f"what {n}?", "answer": "a"} for n in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    task = make_task(declare())
    prepare(task, None, tmp_path / "data", rows=tmp_path / "rows.parquet")
    assert cached(clip, tmp_path / "rows.parquet", tmp_path / "store")
    store = FeatureStore.open(tmp_path / "store")
    images = {key for split in SPLITS for key in split_images(tmp_path / "data", task, split)}
    assert sorted(images) == store.image_ids.tolist()
    apart = FeatureStore.open(cache_features(clip, tmp_path / "data", task, num_workers=0, device="cpu"))
    torch.testing.assert_close(store.read(sorted(images)), apart.read(sorted(images)), rtol=1e-3, atol=1e-3)


def test_a_picture_that_comes_twice_is_one(clip, tmp_path):
    pictures = [picture(0), picture(1), picture(0)]
    write_tar(tmp_path / "a.tar", pictures)
    write_tar(tmp_path / "b.tar", [picture(1), picture(2)])
    assert cached(clip, tmp_path / "*.tar", tmp_path / "store")
    store = FeatureStore.open(tmp_path / "store")
    assert len(store) == 3
    assert json.loads((tmp_path / "store" / "index.json").read_text())["repeated"] == [number_of(picture(1))]
    assert store.read([number_of(picture(n)) for n in range(3)]).shape[0] == 3
    store.verify()


def test_a_picture_that_cannot_be_read_stops_or_is_left_out(clip, tmp_path):
    damaged = picture(1)[:60]
    write_tar(tmp_path / "a.tar", [picture(0), damaged])
    with pytest.raises(DataError, match=r"a\.tar, 00000001\.png: .*`--on-error skip` would go on without it"):
        cached(clip, tmp_path / "a.tar", tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.done"))
    assert cached(clip, tmp_path / "a.tar", tmp_path / "store", on_error="skip")
    store = FeatureStore.open(tmp_path / "store")
    assert list(store.skipped) == [number_of(damaged)]
    assert len(store) == 1
    with pytest.raises(DataError, match="would go on without it"):  # as a store of a task: it is tried again
        cached(clip, tmp_path / "a.tar", tmp_path / "store")


def test_a_backbone_s_records_come_from_shards_too(tars, tmp_path, capsys):
    vlm = save_tiny_vlm("qwen3_vl", tmp_path / "vlm")
    capsys.readouterr()
    words = [
        "cache-features",
        "--shards",
        str(tars / "*.tar"),
        "--model.backbone",
        str(vlm),
        "--dtype",
        "int8",
        "--out",
    ]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out == f"features: {tmp_path / 'one'}\n"
    for rank in (1, 0):
        assert main([*words, str(tmp_path / "two"), "--rank", str(rank), "--world", "2", "--workers", "0"]) == 0
    assert "(other processes have shards to do)" in capsys.readouterr().out
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    store = open_store(tmp_path / "one")
    (record,) = store.read([number_of(picture(0))])
    assert record.deepstack is not None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Worker(0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Worker(2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8"}, Worker(5, 8)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "1",
            },
            Worker(4, 8),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            Worker(3, 4),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3", "RANK": "1", "WORLD_SIZE": "2"},
            Worker(3, 6),
        ),
    ],
)  # fmt: skip
def test_a_launcher_s_variables_say_which_part_is_whose(environment, expected):
    assert find_worker(None, None, environment) == expected
    assert find_worker(1, 2, environment) == Worker(1, 2)


@pytest.mark.parametrize(
    ("rank", "world", "environment", "message"),
    [
        (1, None, {}, "--rank and --world: give both, or neither"),
        (4, 4, {}, "--rank, --world: process 4 of 4: ranks go from 0 to 3"),
        (None, None, {"RANK": "x", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE: expected two whole numbers, got 'x' and "),
        (None, None, {"SLURM_ARRAY_TASK_ID": "3"}, "_TASK_COUNT: expected two whole numbers, got '3' and None"),
        (
            None, None, {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "4"},
            "SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT: 9 is none of 4 numbers from 0 on in steps of 1; number the",
        ),
        (
            None, None,
            {
                "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "1",
            },
            "4 is none of 3 numbers from 1 on",
        ),
        (
            None, None,
            {
                "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            "3 is none of 3 numbers from 0 on in steps of 2",
        ),
        (None, None, {"RANK": "3", "WORLD_SIZE": "3"}, "RANK, WORLD_SIZE: process 3 of 3"),
    ],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(rank, world, environment, message):
    with pytest.raises(ConfigError, match=message):
        find_worker(rank, world, environment)


# What is refused of inputs and of a folder


def cut_tar(tars):
    path = tars / "00002.tar"
    path.write_bytes(path.read_bytes()[:-10_240])


def packed_tar(tars):
    (tars / "00002.tar").write_bytes(b"\x1f\x8b" * 600 + bytes(1024))


NOT_COMPLETE = r"a\.parquet: not a complete Parquet file"


@pytest.mark.parametrize(
    ("spoil", "files", "message"),
    [
        (lambda tars: None, "*.zip", r"--shards .*\*\.zip: no such file; quote a pattern"),
        (lambda tars: (tars / "a.txt").write_text("x"), "a.txt", r"a\.txt: is neither NAME\.tar .* nor NAME\.parquet"),
        (cut_tar, "*.tar", r"00002\.tar: does not end as a tar does: cut short"),
        (packed_tar, "*.tar", r"00002\.tar: a tar that is damaged"),
        (lambda tars: (tars / "00002.tar").write_bytes(b""), "*.tar", r"00002\.tar: .*cut short"),
        (lambda tars: (tars / "a.parquet").write_bytes(b"PAR1"), "*.parquet", NOT_COMPLETE),
        (
            lambda tars: pq.write_table(pa.table({"text": ["a"]}), tars / "a.parquet"), "*.parquet",
            r"a\.parquet: no column of pictures called image or jpg .*; there are text; --image-column names it",
        ),
        (
            lambda tars: pq.write_table(pa.table({"image": ["no.png"]}), tars / "a.parquet"), "*.parquet",
            r"a\.parquet, record 0: image .*no\.png: cannot be read: No such file",
        ),
    ],
)  # fmt: skip
def test_inputs_that_are_none_are_named(clip, tars, tmp_path, spoil, files, message):
    spoil(tars)
    with pytest.raises(DataError, match=message):
        cached(clip, tars / files, tmp_path / "store")
    assert not (tmp_path / "store" / "index.json").exists()


def test_an_input_that_a_loader_process_cannot_read_is_named_alike(clip, tars, tmp_path):
    cut_tar(tars)
    with pytest.raises(DataError, match=r"\A\S+00002\.tar: does not end as a tar does: [^\n]*\Z"):
        cached(clip, tars / "*.tar", tmp_path / "store", num_workers=1)


def test_a_stream_that_cannot_be_had_is_named():
    with pytest.raises(DataError, match="--stream nobody/nothing: cannot be read from the hub"):
        find_shards(None, "nobody/nothing")


def test_a_tar_writes_nothing_and_its_links_lead_nowhere(clip, tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(5))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("linked.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        tar.addfile(link)
        member = tarfile.TarInfo("../../climbs.png")
        member.size = len(picture(1))
        tar.addfile(member, io.BytesIO(picture(1)))
    assert cached(clip, tmp_path / "a.tar", tmp_path / "store")
    assert FeatureStore.open(tmp_path / "store").image_ids.tolist() == [number_of(picture(1))]
    assert not list(tmp_path.parent.rglob("climbs.png"))


def test_two_inputs_of_one_name_are_refused(clip, tars, tmp_path):
    (tmp_path / "more").mkdir()
    write_tar(tmp_path / "more" / "00000.tar", [picture(99)])
    with pytest.raises(DataError, match=r"two files are called 00000\.tar"):
        open_shards([str(tars / "*.tar"), str(tmp_path / "more" / "*.tar")])


def test_other_inputs_or_another_encoder_do_not_go_on(clip, tars, tmp_path):
    cached(clip, tars / "*.tar", tmp_path / "store", Worker(0, 2))
    with pytest.raises(DataError, match=r"00000\.done: was made of .*'encoder'.* and this process would make it of"):
        cached(OpenClipConfig(model=clip.model, pooled_grid=None), tars / "*.tar", tmp_path / "store")
    write_tar(tars / "00005.tar", [picture(77)])
    with pytest.raises(DataError, match=r"00000\.done: was made of .*'of': 5.*'of': 6"):
        cached(clip, tars / "*.tar", tmp_path / "store")


def test_another_column_does_not_go_on(clip, tmp_path):
    columns = {name: pa.array([picture(seed)], pa.binary()) for seed, name in enumerate(("image", "photo"))}
    for number in range(2):
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    assert not cached(clip, tmp_path / "*.parquet", tmp_path / "store", Worker(0, 2))
    with pytest.raises(DataError, match=r"'column': 'image'.* would make it of .*'column': 'photo'"):
        cache_shards(clip, open_shards([str(tmp_path / "*.parquet")], column="photo"), tmp_path / "store")


def test_a_stream_is_called_by_its_configuration_too(monkeypatch):
    import datasets

    stream = datasets.IterableDataset.from_generator(lambda: iter([{"image": picture(0)}]))
    stream = stream.cast(datasets.Features({"image": datasets.Image()}))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: stream)
    names = [find_shards(None, name)[0].name for name in ("a/b:large", "a/b:small")]
    assert names == ["a-b:large-train-00000", "a-b:small-train-00000"]


def test_a_store_of_a_task_is_not_overwritten(clip, tars, tmp_path):
    cached(clip, tars / "*.tar", tmp_path / "store")
    for path in (tmp_path / "store").glob("*.done"):
        path.unlink()
    with pytest.raises(DataError, match="holds a store that was not made of shards; choose another --out"):
        cached(clip, tars / "*.tar", tmp_path / "store")


def test_a_shard_that_was_cut_short_is_made_again_and_a_damaged_marker_named(clip, tars, tmp_path):
    cached(clip, tars / "*.tar", tmp_path / "store")
    before = contents(tmp_path / "store")
    path = tmp_path / "store" / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert cached(clip, tars / "*.tar", tmp_path / "store")
    assert contents(tmp_path / "store") == before
    (tmp_path / "store" / "00003.done").write_text("{}")
    with pytest.raises(DataError, match=r"00003\.done: damaged marker .*; remove it to encode its shard again"):
        cached(clip, tars / "*.tar", tmp_path / "store")


@pytest.mark.parametrize("worker", [None, Worker(1, 5)])
def test_a_disk_that_is_too_small_for_all_is_refused_before_the_work(clip, tars, tmp_path, monkeypatch, worker):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(DataError, match=r"about 35 images of 4 x 32 float16 in 5 of 5 shards need 8\.75 KiB, and its"):
        cached(clip, tars / "*.tar", tmp_path / "store", worker)
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shards", "a.tar"], "--out: not set"),
        (["--shards", "a.tar", "--stream", "a/b", "--out", "o"], "--stream: give --shards or --stream"),
        (["--shards", "a.tar", "--split", "train", "--out", "o"], "--split: is of --stream"),
        (["--shards", "a.tar", "--out", "o", "--task", "vqa"], "task: has no effect with --shards"),
        (["--shards", "a.tar", "--out", "o", "--rank", "1"], "--rank and --world: give both"),
        (["--shards", "a.tar", "--out", "o", "--images", "i"], "data.image_dir: has no effect with --shards"),
        (["--shards", "a.tar", "--out", "o", "--batch-size", "0"], "--batch-size: should be a whole number from 1 on"),
        (["--task", "vqa", "--workers", "-1"], "--workers: should be a whole number from 0 on, got -1"),
        (["--verify", "store", "--image-column", "jpg"], "--image-column: has no effect with --verify"),
        (["--task", "vqa", "--out", "o"], "--out: is of --shards and --stream"),
    ],
)
def test_flags_that_contradict_are_refused(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["cache-features", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Kills


def start(tars, out, clip, rank):
    """A process that encodes its share of four."""
    child = os.fork()
    if child == 0:
        try:
            cached(clip, tars / "*.tar", out, Worker(rank, 4), batch_size=100)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def exit_codes(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def kill_two_of_four(clip, tars, out, killed_after):
    """Starts four processes, kills two of them once a few shards are done, and lets four more do the rest."""
    children = [start(tars, out, clip, rank) for rank in range(4)]
    while len(list(out.glob("*.done"))) < killed_after:
        time.sleep(0.005)
    for child in children[1:3]:
        os.kill(child, signal.SIGKILL)
    assert exit_codes(children) == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    assert not (out / "index.json").exists(), "the killed ones had shards left"
    assert exit_codes([start(tars, out, clip, rank) for rank in range(4)]) == [0] * 4


def write_pictures(folder, shards, each):
    folder.mkdir()
    for shard in range(shards):
        write_tar(folder / f"{shard:05d}.tar", [picture(each * shard + n) for n in range(each)])
    return folder


def test_ten_thousand_pictures_by_four_of_which_two_are_killed(clip, tmp_path):
    tars = write_pictures(tmp_path / "tars", 100, 100)
    cached(clip, tars / "*.tar", tmp_path / "one", batch_size=100)
    kill_two_of_four(clip, tars, tmp_path / "four", killed_after=20)
    assert contents(tmp_path / "four") == contents(tmp_path / "one")
    store = FeatureStore.open(tmp_path / "four")
    assert len(store) == 10_000
    store.verify()
    assert grid_encoding(clip, torch.device("cpu")).fingerprint == store.fingerprint
