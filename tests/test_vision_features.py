"""Stored features of vision-language backbones: the numbers of pixels, whatever family, place and type; refusals."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dept_vl.data.image_rows import ImageRows, Record, TowerFeatures
from dept_vl.data.record_store import RecordStore
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.backbone_encoder import BackboneEncoder
from dept_vl.models.language.load import load_backbone
from tests.commands import prepared_rows, refusal, run
from tests.models.vision_language_folders import MAKERS, draw_image, is_readable, save_tiny_vlm
from tests.tuners.adapted import settings

SMALL = (
    "--data.max_source_length", "24", "--data.max_target_length", "5", "--data.batch_size", "4",
    "--tuner.num_virtual_tokens", "4", "--tuner.budget_tokens", "11", "--loop.eval_every_steps", "2",
    "--loop.eval_rows", "8", "--loop.max_steps", "3",
)  # fmt: skip
PROMPT = settings("prompt-tuning", num_virtual_tokens=2)
SIZES = ((40, 28), (12, 30), (40, 28), (33, 65))
NARROWER = {"llava": "tower", "paligemma": "tower"}
"""Families of which an image has fewer numbers before the connector; in the tiny ones too."""
CONNECTED = ("llava", "paligemma", "gemma3", "idefics3", "smolvlm", "internvl")

every_family = pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=pytest.mark.skipif(not is_readable(f), reason="needs the extra smolvlm")) for f in MAKERS],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def fresh(data, tmp_path):
    """Prepared data without a store."""
    return shutil.copytree(data, tmp_path / "data", symlinks=True)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return save_tiny_vlm("qwen3_vl", tmp_path_factory.mktemp("qwen"))


def on(vlm, data, task="vqa"):
    return ["--task", task, "--data-dir", data, "--model.backbone", vlm]


def stored(folder, images, **options):
    """A store of pictures, numbered from 0, and what encoded them."""
    from data_prep.encodings import record_encoding
    from data_prep.feature_writer import FeatureWriter

    encoder = BackboneEncoder(options.pop("backbone"), label="tiny", **options)
    layout = record_encoding(encoder, []).layout
    processed = [encoder.preprocess(image) for image in images]
    with FeatureWriter(folder, encoder.fingerprint, range(len(images)), layout=layout, rows_per_shard=3) as writer:
        for plan in writer.pending():
            writer.write(plan, encoder([processed[i] for i in plan.image_ids]), [1] * len(plan.image_ids))
        writer.finish()
    return RecordStore.open(folder), processed


@every_family
@pytest.mark.parametrize("where", ["auto", "tower", "connector"])
@torch.no_grad()
def test_a_model_answers_of_stored_features_as_of_pixels(family, where, tmp_path):
    folder = save_tiny_vlm(family, tmp_path / "vlm")
    loaded = load_backbone(str(folder))
    images = [draw_image(*size, seed=number) for number, size in enumerate(SIZES)]
    if where == "tower" and family not in CONNECTED:
        with pytest.raises(ConfigError, match=f"--where tower: transformers gives no features of {family} before"):
            BackboneEncoder(loaded[0], label="tiny", where=where)
        return
    store, processed = stored(tmp_path / "store", images, backbone=loaded[0], where=where, dtype="float32")
    assert store.where == {"auto": NARROWER.get(family, "connector")}.get(where, where)
    store.verify()
    config = ModelConfig(backbone=str(folder))
    model, codec = build_model(config, PROMPT, max_source_length=16, feature_dim=None, seed=0, backbone=loaded)
    model.eval()
    order = [3, 0, 1, 0]
    cached, pixels = store.read(order), [processed[i] for i in order]
    assert {type(one) for one in cached} == {TowerFeatures if store.where == "tower" else Record}
    assert cached[1] is cached[3]
    ids = torch.tensor(codec.source_ids(["what color"] * 4, 16))
    mask, labels = torch.ones_like(ids), torch.tensor([[5, 6]] * 4)
    tolerance = 1e-5 if model.backbone.layout.linear_parts is None else 2e-4
    for rows in (4, 2):
        texts = (ids[:rows], mask[:rows])
        ours, theirs = (ImageRows.one_each(each).grouped(rows) for each in (cached, pixels))
        expected = model(*texts, labels[:rows], theirs).logits
        torch.testing.assert_close(model(*texts, labels[:rows], ours).logits, expected, rtol=1e-4, atol=tolerance)
        found = [model.generate(*texts, each, max_new_tokens=4, num_beams=2).tolist() for each in (ours, theirs)]
        assert found[0] == found[1]
    unseen = [model(ids, mask, labels, ImageRows.one_each(each).unseen()).logits for each in (cached, pixels)]
    torch.testing.assert_close(unseen[0], unseen[1], rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-10), ("int8", 1 / 120)])
def test_narrow_types_round_each_token(qwen, tmp_path, dtype, tolerance):
    images = [draw_image(*size, seed=number) for number, size in enumerate(SIZES)]
    backbone, _ = load_backbone(str(qwen))
    exact, _ = stored(tmp_path / "exact", images, backbone=backbone, dtype="float32")
    store, _ = stored(tmp_path / "narrow", images, backbone=backbone, dtype=dtype)
    store.verify()
    for ours, theirs in zip(store.read(range(4)), exact.read(range(4)), strict=True):
        for one, other in ((ours.tokens, theirs.tokens), (ours.deepstack, theirs.deepstack)):
            largest = other.abs().amax(dim=-1, keepdim=True)
            assert bool(((one.float() - other).abs() <= largest * tolerance / (2 if dtype == "int8" else 1)).all())
        assert torch.equal(ours.grid, theirs.grid)
        assert torch.equal(ours.ids, theirs.ids)
    size = {
        name: sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors")) for name in ("exact", "narrow")
    }
    assert size["narrow"] < size["exact"] * (0.6 if dtype == "int8" else 0.75)


def logged(caplog, text):
    """Whether something was said since the last question."""
    found = any(text in message for message in caplog.messages)
    caplog.clear()
    return found


READ, ENCODED = "images are read from", "images are encoded as they are read"


@pytest.mark.parametrize("family", ["qwen3_vl", "llava"])
def test_a_run_reads_the_store_of_its_data_and_gives_the_same_numbers(capsys, caplog, fresh, tmp_path, family):
    caplog.set_level("INFO")
    vlm = save_tiny_vlm(family, tmp_path / "vlm")
    losses = {}
    for name, more in (("pixels", ()), ("cached", ()), ("told", ("--data.visual_features", "encode"))):
        if name == "cached":
            code, out, error = run(capsys, "cache-features", *on(vlm, fresh))
            assert code == 0, error
            assert f"--model.backbone {vlm}" in out
            assert logged(caplog, "to write for 12 images of about")
        code, _, error = run(capsys, "train", *on(vlm, fresh), *SMALL, *more, "--output-dir", tmp_path / name)
        assert code == 0, error
        assert logged(caplog, READ if name == "cached" else ENCODED)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in lines if "loss" in line]
    assert losses["cached"] == pytest.approx(losses["pixels"], rel=1e-5)
    assert losses["told"] == losses["pixels"]
    assert run(capsys, "eval", "--checkpoint", tmp_path / "pixels")[0] == 0
    assert logged(caplog, READ)


def test_a_store_serves_tasks_of_several_images_a_row(capsys, caplog, qwen, fresh, tmp_path):
    caplog.set_level("INFO")
    assert run(capsys, "cache-features", *on(qwen, fresh, "nlvr2"), "--dtype", "int8", "--workers", "0")[0] == 0
    code, _, error = run(capsys, "train", *on(qwen, fresh, "nlvr2"), *SMALL, "--output-dir", tmp_path / "run")
    assert code == 0, error
    assert logged(caplog, "(int8)")
    zero = ("--data.visual_features", "zero")
    assert run(capsys, "train", *on(qwen, fresh, "nlvr2"), *SMALL, *zero, "--output-dir", tmp_path / "blind")[0] == 0
    picture = tmp_path / "one.png"
    draw_image(32, 32, seed=0).save(picture)
    code, _, error = run(
        capsys, "predict", "--checkpoint", tmp_path / "blind", "--image", picture, picture, "--column", "sentence=same?"
    )
    assert (code, "data.visual_features: the run saw nothing in its images ('zero')" in error) == (2, True), error


def test_of_tasks_with_images_and_without_those_with_are_stored(capsys, qwen, fresh):
    code, out, error = run(capsys, "cache-features", *on(qwen, fresh, "cola+vqa"))
    assert code == 0, error
    assert "dept-vl train --task cola+vqa" in out
    (folder,) = (fresh / "features").iterdir()
    assert f"features: {folder}" in out


def test_caching_goes_on_where_it_stopped(capsys, qwen, fresh):
    assert run(capsys, "cache-features", *on(qwen, fresh))[0] == 0
    (folder,) = (fresh / "features").iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    (folder / "index.json").unlink()
    assert run(capsys, "cache-features", *on(qwen, fresh))[0] == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"} == before
    code, out, _ = run(capsys, "cache-features", "--verify", folder)
    assert (code, "12 images" in out) == (0, True)


# What is refused


def resized(qwen, tmp_path):
    """The same model with a processor that leaves pictures smaller."""
    folder = shutil.copytree(qwen, tmp_path / "resized")
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        if path.exists():
            path.write_text(path.read_text().replace('"longest_edge": 1024', '"longest_edge": 256'))
    return folder


def test_a_cache_of_another_resolution_is_refused_with_both(capsys, caplog, qwen, fresh, tmp_path):
    other = resized(qwen, tmp_path)
    assert run(capsys, "cache-features", *on(other, fresh))[0] == 0
    (folder,) = (fresh / "features").iterdir()
    words = (*SMALL, "--data.feature_dir", folder, "--output-dir", tmp_path / "run")
    error = refusal(capsys, "train", *on(qwen, fresh), *words)
    assert "holds features made otherwise: preprocessing.size is" in error
    assert "'longest_edge': 256" in error
    assert "'longest_edge': 1024" in error
    assert not (tmp_path / "run" / "adapter_config.json").exists()
    caplog.set_level("INFO")
    assert run(capsys, "train", *on(qwen, fresh), *SMALL, "--output-dir", tmp_path / "pixels")[0] == 0
    assert logged(caplog, f"{ENCODED}; stores of others: {folder.name}: preprocessing.size is")


def test_a_cache_of_other_weights_or_of_an_encoder_is_refused(capsys, qwen, fresh, tmp_path):
    other = save_tiny_vlm("qwen3_vl", tmp_path / "other", seed=1)
    assert run(capsys, "cache-features", *on(other, fresh))[0] == 0
    (folder,) = (fresh / "features").iterdir()
    words = (*SMALL, "--data.feature_dir", folder, "--output-dir", tmp_path / "run")
    assert "weights_sha256 is" in refusal(capsys, "train", *on(qwen, fresh), *words)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(
        json.dumps({**index, "format": 1, "num_visual_tokens": 4, "shards": [], "levels": None})
    )
    error = refusal(capsys, "train", *on(qwen, fresh), *words)
    assert "holds features of an image encoder, expected those of a vision-language backbone" in error


def test_two_stores_that_fit_are_to_be_told_apart(capsys, qwen, fresh, tmp_path):
    for dtype in ("float32", "int8"):
        assert run(capsys, "cache-features", *on(qwen, fresh), "--dtype", dtype)[0] == 0
    words = ("--output-dir", tmp_path / "run")
    error = refusal(capsys, "train", *on(qwen, fresh), *SMALL, *words)
    assert "several stores fit" in error
    assert "name one with data.feature_dir" in error
    stores = {json.loads((path / "index.json").read_text())["dtype"]: path for path in (fresh / "features").iterdir()}
    assert run(capsys, "train", *on(qwen, fresh), *SMALL, "--data.feature_dir", stores["int8"], *words)[0] == 0


def test_images_that_a_store_lacks_are_named(capsys, qwen, fresh, tmp_path):
    assert run(capsys, "cache-features", *on(qwen, fresh, "nlvr2"))[0] == 0
    error = refusal(capsys, "train", *on(qwen, fresh), *SMALL, "--output-dir", tmp_path / "run")
    assert "the feature store has no features for" in error
    assert "dept-vl cache-features --task vqa" in error


def test_a_disk_that_is_too_small_is_refused_before_the_work(capsys, qwen, fresh, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    error = refusal(capsys, "cache-features", *on(qwen, fresh))
    assert "12 images of about" in error
    assert "need " in error
    assert "and its disk has 0.977 KiB free; free " in error
    assert not list((fresh / "features").rglob("*.safetensors"))


@pytest.mark.parametrize("flag", [("--where", "tower"), ("--dtype", "int8"), ("--model.dtype", "bfloat16")])
def test_flags_of_backbones_are_refused_of_an_image_encoder(capsys, fresh, flag):
    error = refusal(capsys, "cache-features", "--task", "vqa", "--data-dir", fresh, *flag)
    assert f"{flag[0]}: is of vision-language backbones" in error


def test_a_family_without_a_connector_of_its_own_has_no_tower(capsys, qwen, fresh):
    error = refusal(capsys, "cache-features", *on(qwen, fresh), "--where", "tower")
    assert "--where tower: transformers gives no features of qwen3_vl before its connector" in error


@pytest.fixture
def store(qwen, tmp_path):
    images = [draw_image(*size, seed=number) for number, size in enumerate(SIZES)]
    return stored(tmp_path / "store", images, backbone=load_backbone(str(qwen))[0])[0].folder


def test_a_store_cut_short_is_named(store):
    path = store / "00000.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"00000\.safetensors: has \d+ bytes where its header says \d+: cut short"):
        RecordStore.open(store)


@pytest.mark.parametrize("name", ["offsets", "id_offsets"])
@pytest.mark.parametrize("change", [lambda o: o - (o == o[-1]).long(), lambda o: o.flip(0), lambda o: o + 1])
def test_offsets_that_are_not_those_of_the_tokens_are_named(store, name, change):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = store / "00000.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(DataError, match=rf"00000\.safetensors: {name} go from -?\d+ to \d+ where"):
        RecordStore.open(store)


def test_fewer_offsets_than_images_are_named(store):
    index = json.loads((store / "index.json").read_text())
    index["shards"][0]["image_ids"].append(77)
    (store / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"00000\.safetensors: offsets \(4,\) I64, the index says \(5,\) I64"):
        RecordStore.open(store)


def test_a_connector_that_is_trained_reads_what_goes_into_it(capsys, caplog, fresh, tmp_path):
    caplog.set_level("INFO")
    vlm = save_tiny_vlm("llava", tmp_path / "vlm")
    words = [*on(vlm, fresh), *SMALL, "--model.train_connector", "true"]
    assert run(capsys, "train", *words, "--output-dir", tmp_path / "pixels")[0] == 0
    assert run(capsys, "cache-features", *on(vlm, fresh), "--where", "tower", "--dtype", "float32")[0] == 0
    assert run(capsys, "train", *words, "--output-dir", tmp_path / "stored")[0] == 0
    assert logged(caplog, READ)
    pixels, features = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("pixels", "stored"))
    assert any(name.startswith("backbone.") for name in pixels)
    for name, tensor in pixels.items():
        torch.testing.assert_close(features[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_connector_that_is_trained_cannot_read_what_it_is_to_make(capsys, fresh, qwen, tmp_path):
    assert run(capsys, "cache-features", *on(qwen, fresh))[0] == 0
    words = [*on(qwen, fresh), *SMALL, "--model.train_connector", "true", "--output-dir", tmp_path / "run"]
    error = refusal(capsys, "train", *words)
    assert "holds what images become behind the connector, which model.train_connector trains" in error
    assert not (tmp_path / "run").exists()
