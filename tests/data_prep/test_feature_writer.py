"""Building survives every kill point, extends, skips, and never runs twice at once."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from data_prep.feature_writer import FeatureWriter
from dept_vl.data.features import FeatureStore
from dept_vl.errors import ConfigError, DataError
from tests.data.feature_stores import FINGERPRINT, IDS, build, contents, features_of


def is_killed(folder: Path, point: int, when: str) -> bool:
    """Builds a store in a process that kills itself at a disk operation; False if it ended before it came to that.

    Each system call that changes the disk is a place to die. They are counted, and the process dies at the `point`-th,
    ``"before"`` or ``"after"`` it takes effect.
    """
    child = os.fork()
    if child == 0:
        try:
            _build_and_die(folder, point, when)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _build_and_die(folder: Path, point: int, when: str) -> None:
    count = 0

    def dying(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            mine = count
            if mine == point and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **options)
            finally:
                if mine == point and when == "after":
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    os.fsync, os.replace, os.unlink = dying(os.fsync), dying(os.replace), dying(os.unlink)
    build(folder, skip=[7])


def test_the_plan_follows_from_the_ids_alone(tmp_path):
    with FeatureWriter(tmp_path, FINGERPRINT, IDS + IDS[::-1], rows_per_shard=3) as writer:
        plans = writer.pending()
    assert [plan.image_ids for plan in plans] == [(1, 3, 5), (7, 12, 44), (900_000_000_000,)]
    with FeatureWriter(tmp_path, FINGERPRINT, IDS, rows_per_shard=3) as writer:
        assert writer.pending(0, 2) == plans[::2]
        assert writer.pending(1, 2) == plans[1::2]


def test_stopping_between_shards_changes_nothing(tmp_path):
    build(tmp_path / "whole")
    for stop_after in (1, 1, None):
        build(tmp_path / "parts", stop_after=stop_after)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_disk_operation_and_resumed_gives_the_same_bytes(tmp_path, when):
    build(tmp_path / "whole", skip=[7])
    point = 0
    while True:
        point += 1
        folder = tmp_path / f"{when}-{point}"
        if not is_killed(folder, point, when):
            break
        if (folder / "index.json").exists():
            FeatureStore.open(folder).verify()  # an index is only ever there when everything is
        build(folder, skip=[7])
        assert contents(folder) == contents(tmp_path / "whole"), f"killed {when} operation {point}"
    assert point > 10


def test_half_written_and_foreign_shards_are_written_again(tmp_path):
    build(tmp_path / "whole")
    build(tmp_path / "half", stop_after=2)
    path = tmp_path / "half" / "00000.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    build(tmp_path / "other", fingerprint={**FINGERPRINT, "model": "hugo"}, stop_after=2)
    (tmp_path / "half" / "00001.safetensors").write_bytes((tmp_path / "other" / "00001.safetensors").read_bytes())
    (tmp_path / "half" / ".00002.safetensors.tmp-1").write_bytes(b"half")
    build(tmp_path / "half")
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


def test_a_finished_store_is_extended_by_missing_images_only(tmp_path):
    build(tmp_path, IDS[:4])
    before = contents(tmp_path)
    with FeatureWriter(tmp_path, FINGERPRINT, IDS, rows_per_shard=3) as writer:
        assert [plan.image_ids for plan in writer.pending()] == [(3, 12, 44)]
        assert FeatureStore.open(tmp_path).image_ids.tolist() == sorted(IDS[:4]), "readable while it grows"
    store = build(tmp_path)
    assert torch.equal(store.read(IDS), features_of(IDS))
    after = contents(tmp_path)
    assert {name: after[name] for name in before if name.endswith("safetensors")} == {
        name: data for name, data in before.items() if name.endswith("safetensors")
    }
    assert contents(tmp_path) == (build(tmp_path) and contents(tmp_path)), "nothing to do changes nothing"


def test_skipped_images_are_tried_again_next_time(tmp_path):
    store = build(tmp_path, skip=[1, 3, 5, 44])
    assert sorted(store.skipped) == [1, 3, 5, 44]
    assert not (tmp_path / "00000.safetensors").exists(), "nothing in it was readable"
    store = build(tmp_path, skip=[44])
    assert sorted(store.skipped) == [44]
    assert torch.equal(store.read([1, 3, 5, 7]), features_of([1, 3, 5, 7]))
    store = build(tmp_path, [2], skip=[])
    assert sorted(store.skipped) == [44], "an image not asked for stays listed"


def test_a_run_that_may_not_skip_writes_incomplete_shards_again(tmp_path):
    build(tmp_path, skip=[7], stop_after=2)
    with FeatureWriter(tmp_path, FINGERPRINT, IDS, rows_per_shard=3, allow_skipped=True) as writer:
        assert [plan.number for plan in writer.pending()] == [2]
    with FeatureWriter(tmp_path, FINGERPRINT, IDS, rows_per_shard=3, allow_skipped=False) as writer:
        assert [plan.number for plan in writer.pending()] == [1, 2]


def test_two_builders_of_one_store(tmp_path):
    with FeatureWriter(tmp_path, FINGERPRINT, IDS):
        with pytest.raises(ConfigError, match=rf"store .*: in use by process {os.getpid()} on .* for \d seconds"):
            FeatureWriter(tmp_path, FINGERPRINT, IDS).__enter__()
        beside = FeatureWriter(tmp_path, FINGERPRINT, IDS, is_owner=False)
        with beside:
            assert beside.pending()
    with FeatureWriter(tmp_path, FINGERPRINT, IDS):
        pass


def test_a_damaged_or_foreign_store_is_not_extended(tmp_path):
    build(tmp_path)
    with pytest.raises(DataError, match="holds features of another encoder"):
        FeatureWriter(tmp_path, {**FINGERPRINT, "model": "x"}, [99]).__enter__()
    path = tmp_path / "00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"00000.safetensors: .*cut short"):
        FeatureWriter(tmp_path, FINGERPRINT, [99]).__enter__()


def test_numbers_float16_cannot_hold_are_refused(tmp_path):
    with FeatureWriter(tmp_path, FINGERPRINT, [1, 2]) as writer:
        (plan,) = writer.pending()
        features = features_of([1, 2], torch.float32)
        features[1, 0, 0] = 70_000
        with pytest.raises(DataError, match="image 2: a feature is not finite in float16"):
            writer.write(plan, features, [1, 1])
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_missing_shard_stops_the_finish(tmp_path):
    with FeatureWriter(tmp_path, FINGERPRINT, [1, 2]) as writer, pytest.raises(DataError, match="was not written"):
        writer.finish()
    assert not (tmp_path / "index.json").exists()


def test_file_sizes_are_remembered(tmp_path):
    build(tmp_path, IDS[:4])
    with FeatureWriter(tmp_path, FINGERPRINT, IDS, rows_per_shard=3) as writer:
        assert writer.stored_sizes() == {i: 100 + i % 7 for i in IDS[:4]}


def test_the_default_shard_is_about_128_mib(tmp_path):
    fingerprint = {**FINGERPRINT, "num_visual_tokens": 36, "feature_dim": 2048}
    with FeatureWriter(tmp_path, fingerprint, range(123_287)) as writer:
        assert len(writer.pending()) == 136
        assert len(writer.pending()[0].image_ids) == 910


def test_index_text_is_small_and_ordered(tmp_path):
    build(tmp_path)
    text = (tmp_path / "index.json").read_text()
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) + "\n" == text
    assert os.stat(tmp_path / "index.json").st_mode & 0o777 == os.stat(tmp_path / "00000.safetensors").st_mode & 0o777
