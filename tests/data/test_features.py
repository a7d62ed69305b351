"""The feature store: what is written comes back, and what is wrong with a file is found and named."""

import json
import multiprocessing
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from data_prep.feature_writer import FeatureWriter
from dept_vl.data import feature_format
from dept_vl.data.features import FeatureStore, find_store
from dept_vl.data.number_types import rounded
from dept_vl.errors import DataError
from tests.data.feature_stores import FINGERPRINT, IDS, build, features_of


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_written_comes_back_in_the_order_asked_for(tmp_path, dtype):
    build(tmp_path, fingerprint={**FINGERPRINT, "dtype": dtype})
    store = FeatureStore.open(tmp_path)
    wanted = [44, 1, 900_000_000_000, 1, 5]
    read = store.read(wanted)
    assert read.dtype == store.dtype == getattr(torch, dtype)
    assert torch.equal(read, features_of(wanted, store.dtype))
    assert len(store) == 7
    assert 44 in store
    assert 45 not in store
    assert "44" not in store
    assert store.image_ids.tolist() == sorted(IDS)
    assert store.read([]).shape == (0, 3, 4)
    store.verify()


def test_int8_has_a_scale_a_token_and_rounds_what_it_rounded_to_itself(tmp_path):
    fingerprint = {**FINGERPRINT, "dtype": "int8"}
    rows = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e3])[:, None]
    rows[2, 1] = 0
    with FeatureWriter(tmp_path, fingerprint, IDS, rows_per_shard=3) as writer:
        for plan in writer.pending():
            writer.write(plan, rows[[sorted(IDS).index(i) for i in plan.image_ids]], [1] * len(plan.image_ids))
        store = writer.finish()
    read = store.read(sorted(IDS))
    assert (read.dtype, store.dtype) == (torch.float32, torch.int8)
    assert bool(((read - rows).abs() <= rows.abs().amax(-1, keepdim=True) / 253).all())
    assert torch.equal(read, rounded(rows, "int8"))
    assert torch.equal(rounded(read, "int8"), read)
    assert not read[2, 1].any()
    store.verify()
    with FeatureWriter(tmp_path / "other", fingerprint, [1]) as writer:
        (plan,) = writer.pending()
        with pytest.raises(DataError, match="image 1: a feature is not finite in int8"):
            writer.write(plan, torch.full((1, 3, 4), torch.inf), [1])


def test_safetensors_reads_the_same(tmp_path):
    store = build(tmp_path)
    shards = [load_file(path) for path in tmp_path.glob("*.safetensors")]
    assert sum(len(shard["image_ids"]) for shard in shards) == len(IDS)
    for shard in shards:
        assert torch.equal(shard["features"], store.read(shard["image_ids"].tolist()))


def test_what_is_read_is_the_readers_own(tmp_path):
    store = build(tmp_path)
    store.read([5]).zero_()
    assert torch.equal(store.read([5]), features_of([5]))


def test_missing_images_are_named(tmp_path):
    store = build(tmp_path, skip=[7])
    with pytest.raises(DataError, match=r"no features for 2 of the images asked for: 6, 7 \(skipped: broken\);"):
        store.read([5, 6, 7])
    assert store.skipped == {7: "broken"}
    ledger = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert ledger == [{"image_id": 7, "image": "7.jpg", "error": "broken"}]


def test_a_store_of_skipped_images_only_is_empty_but_opens(tmp_path):
    store = build(tmp_path, [1, 2], skip=[1, 2])
    assert len(store) == 0
    assert 1 not in store
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(DataError, match="no features for 1"):
        store.read([1])


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_reads_in_loader_workers(tmp_path, start_method):
    store = build(tmp_path)
    store.read([5])  # a map is open before the workers start
    assert len(pickle.dumps(store)) < 10_000
    context = multiprocessing.get_context(start_method)
    wanted = [IDS[:3], IDS[3:6], IDS[6:]]
    loader = DataLoader(wanted, batch_size=None, collate_fn=store.read, num_workers=2, multiprocessing_context=context)
    assert torch.equal(torch.cat(list(loader)), features_of(IDS))


# --- damage -----------------------------------------------------------------------------------------------------


def test_no_store(tmp_path):
    with pytest.raises(DataError, match=r"index.json: no such file: there is no feature store here, or its build was"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 60, 400, -1])
def test_a_shard_cut_short_is_named(tmp_path, keep):
    build(tmp_path)
    path = tmp_path / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"00001.safetensors: .*(cut short|not a complete)"):
        FeatureStore.open(tmp_path)


def test_a_shard_grown_or_gone_is_named(tmp_path):
    build(tmp_path)
    path = tmp_path / "00001.safetensors"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    with pytest.raises(DataError, match=r"00001.safetensors: has \d+ bytes where its header says \d+"):
        FeatureStore.open(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"00001.safetensors: no such feature shard"):
        FeatureStore.open(tmp_path)


def test_an_altered_shard_is_found_by_verify(tmp_path):
    build(tmp_path)
    path = tmp_path / "00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store = FeatureStore.open(tmp_path)  # same size and header
    with pytest.raises(DataError, match=r"00002.safetensors: sha256 is \w+, the index says \w+: altered"):
        store.verify()


def test_a_shard_of_another_shape_or_encoder_is_named(tmp_path):
    build(tmp_path / "a")
    path = tmp_path / "a" / "00000.safetensors"
    shard = load_file(path)
    about = {"dept_vl": feature_format.encode_json({"fingerprint": FINGERPRINT, "skipped": []})}
    save_file({**shard, "features": shard["features"].transpose(1, 2).contiguous()}, path, about)
    with pytest.raises(DataError, match=r"00000.safetensors: features \(3, 4, 3\) F16, the index says \(3, 3, 4\) F16"):
        FeatureStore.open(tmp_path / "a")
    save_file({**shard, "features": shard["features"].to(torch.bfloat16)}, path, about)
    with pytest.raises(DataError, match=r"features \(3, 3, 4\) BF16, the index says \(3, 3, 4\) F16"):
        FeatureStore.open(tmp_path / "a")
    other = {"dept_vl": feature_format.encode_json({"fingerprint": {**FINGERPRINT, "model": "huge"}, "skipped": []})}
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    save_file(shard, path, other)
    assert path.stat().st_size == index["shards"][0]["bytes"], "the same length, so that only the fingerprint differs"
    with pytest.raises(DataError, match=r"00000.safetensors: was written by another encoder than the index says"):
        FeatureStore.open(tmp_path / "a")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"features":{"dtype":"F16","shape":[3,3,4]}}',
        b'{"features":{"dtype":"F99","shape":[3,3,4],"data_offsets":[0,72]}}',
        b'{"features":{"dtype":"F16","shape":[-3,-3,8],"data_offsets":[0,144]}}',
        b'{"features":{"dtype":"F16","shape":[3,3,4],"data_offsets":[4000000,4000072]}}',
        b'{"features":{"dtype":"F16","shape":[4611686018427387904,4],"data_offsets":[0,72]}}',
        b'{"__metadata__":{"dept_vl":"{"},"features":{"dtype":"F16","shape":[3,3,4],"data_offsets":[0,72]}}',
        b'{"a":' * 5000,
    ],
)
def test_a_damaged_header_is_an_error_not_a_crash(tmp_path, header):
    build(tmp_path)
    path = tmp_path / "00000.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(72))
    with pytest.raises(DataError, match=r"00000.safetensors: "):
        FeatureStore.open(tmp_path)


def test_an_absurd_header_length_is_refused(tmp_path):
    build(tmp_path)
    (tmp_path / "00000.safetensors").write_bytes((2**62).to_bytes(8, "little") + bytes(1000))
    with pytest.raises(DataError, match=r"00000.safetensors: not a complete safetensors file"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format":1', '"format":9', "feature store of format 9, this version reads 1"),
        ("00000.safetensors", "../00000.safetensors", "damaged index"),
        ('"dtype":"float16","feature_dim"', '"dtype":"int4","feature_dim"', "not a shape a store can have"),
        ('"shards"', '"shard"', "damaged index"),
        ("}", "", "damaged index"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, old, new, message):
    build(tmp_path)
    index = tmp_path / "index.json"
    text = index.read_text()
    assert old in text
    index.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=rf"index.json: .*{message}"):
        FeatureStore.open(tmp_path)


def test_an_image_in_two_shards_is_named(tmp_path):
    build(tmp_path)
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace("[1,3,5]", "[1,3,7]"))
    with pytest.raises(DataError, match=r"image 7 is listed twice"):
        FeatureStore.open(tmp_path)


# --- finding ----------------------------------------------------------------------------------------------------


def test_the_store_that_fits_is_found(tmp_path):
    build(tmp_path / "features" / "tiny-1", fingerprint={**FINGERPRINT, "weights_sha256": "aa"})
    build(tmp_path / "features" / "other-2", fingerprint={**FINGERPRINT, "model": "other", "weights_sha256": "bb"})
    build(tmp_path / "features" / "unfinished", stop_after=1)
    assert find_store(tmp_path, {"model": "other"}).folder.name == "other-2"
    assert find_store(tmp_path, {"model": "tiny", "pooled_grid": None}).fingerprint["weights_sha256"] == "aa"
    with pytest.raises(DataError, match=r"several stores fit \(other-2, tiny-1\)"):
        find_store(tmp_path, {"dtype": "float16"})
    with pytest.raises(DataError, match=r"tiny-1: model is 'tiny', wanted 'RN50'.*run: dept-vl cache-features"):
        find_store(tmp_path, {"model": "RN50"})


def test_no_store_at_all_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"there is no finished store\); run: dept-vl cache-features"):
        find_store(tmp_path, {"model": "RN50"})
