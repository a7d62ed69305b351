"""Every way of the package with image encoders of other kinds, on drawn scenes with the packaged T5."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dept_vl
from data_prep.demo_world.files import write_scenes
from dept_vl.cli import main
from dept_vl.data.features import FeatureStore
from dept_vl.data.images import open_image
from dept_vl.settings.load import config_from_tree
from tests.models.vision.open_clip.folders import TIMM, save_clip
from tests.models.vision.timm_models.folders import save_timm
from tests.models.vision.transformers_models.folders import save_vision_model
from tests.serving.conftest import ask, serving

SIZES = {"num_train": 10, "num_restval": 2, "num_val": 4, "num_test": 6}
SHORT = (
    "--loop.max_steps", "2", "--loop.eval_every_steps", "2", "--loop.log_every_steps", "1", "--data.batch_size", "8",
    "--data.max_source_length", "32", "--model.backbone", "demo", "--tuner", "prompt-tuning", "--lr", "0.3",
)  # fmt: skip
ENCODERS = {
    "open-clip": lambda folder: save_clip(folder, TIMM),
    "timm": lambda folder: save_timm(folder, "test_efficientnet"),
    "transformers": lambda folder: save_vision_model(folder, "dinov3"),
}
GRID = {"open-clip": 6, "timm": 2, "transformers": 3}


def run(*arguments) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def refusal(capsys, *arguments) -> str:
    """Returns the one line of a command that ends with exit code 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def losses(run_dir: Path) -> list[float]:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "raw", seed=1, **SIZES)
    run("prepare", "--task", "vqa", "--raw", root / "raw", "--out", root / "data")
    return root


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request, tmp_path_factory) -> tuple[str, ...]:
    """The words that choose an encoder of a kind, on a command line."""
    kind, grid = request.param, str(GRID[request.param])
    folder = ENCODERS[kind](tmp_path_factory.mktemp(kind) / "tower")
    group = "--model.image_encoder"
    return (f"{group}.kind", kind, f"{group}.model", str(folder), f"{group}.pooled_grid", grid)


@pytest.fixture(scope="module")
def trained(encoder, scenes, tmp_path_factory) -> Path:
    """A run on cached features, scored, and beside it ``data`` with its store."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(scenes / "data", root / "data")
    own = ("--task", "vqa", *encoder, "--data-dir", root / "data")
    run("cache-features", *own, "--workers", "1")
    run("train", *own, *SHORT, "--output-dir", root / "run")
    run("eval", "--checkpoint", root / "run")
    return root


def settings_of(encoder):
    group = {word.rpartition(".")[2]: value for word, value in zip(encoder[::2], encoder[1::2], strict=True)}
    return config_from_tree({"model": {"image_encoder": group}}).model.image_encoder


def test_stored_features_are_the_encoders_own(encoder, trained, scenes):
    (folder,) = (trained / "data" / "features").iterdir()
    store, loaded = FeatureStore.open(folder), settings_of(encoder).load()
    assert folder.name.startswith("tower-")
    assert store.fingerprint == loaded.fingerprint
    assert store.num_visual_tokens == int(encoder[-1]) ** 2
    image = sorted((scenes / "raw" / "val2014").iterdir())[0]
    features = loaded(loaded.preprocess(open_image(image))[None])
    stored = store.read([int(image.stem.rpartition("_")[2])])
    torch.testing.assert_close(stored.float(), features, rtol=2e-3, atol=2e-3)  # of batches of other sizes, in float16
    run("cache-features", "--verify", folder)


def test_encoding_on_the_fly_trains_as_the_cache_does(encoder, trained, scenes, tmp_path):
    run(
        "train", "--task", "vqa", *encoder, "--data-dir", scenes / "data", *SHORT, "--data.visual_features", "encode",
        "--output-dir", tmp_path / "run",
    )  # fmt: skip
    assert losses(tmp_path / "run") == pytest.approx(losses(trained / "run"), abs=2e-3)


def test_the_run_is_described_asked_reported_and_served(encoder, trained, scenes, tmp_path, capsys):
    run_dir, image = trained / "run", sorted((scenes / "raw" / "val2014").iterdir())[0]
    width = settings_of(encoder).feature_dim()
    run("info", "--task", "vqa", *encoder, "--data-dir", "data", "--model.backbone", "demo", "--tuner", "prompt-tuning")
    assert re.search(rf"visual_projection +{192 * (width + 1):,}\n", capsys.readouterr().out)
    run("info", "--task", "vqa", *encoder)  # of the embedded scenes
    recorded = json.loads((run_dir / "adapter_config.json").read_text())
    assert recorded["features"]["model"] == "tower"
    question = "What color is the circle?"
    answer = dept_vl.load(run_dir).answer(str(image), question)
    run("predict", "--checkpoint", run_dir, "--image", image, "--question", question)
    assert answer in capsys.readouterr().out
    run("report", run_dir, "--html", tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 1000
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    with serving([run_dir]) as (_, port):
        status, _, served = ask(port, "run", question, image.read_bytes())
    assert status == 200
    assert served["choices"][0]["message"]["content"] == answer


def test_another_encoder_or_resolution_is_refused(encoder, trained, scenes, tmp_path, capsys):
    own = ("--task", "vqa", "--data-dir", trained / "data", *SHORT, "--output-dir", tmp_path / "run")
    other = save_timm(tmp_path / "other", "test_convnext")
    wanted = ("--model.image_encoder.kind", "timm", "--model.image_encoder.model", other)
    assert "no cached features of the encoder asked for" in refusal(capsys, "train", *own, *wanted)
    (store,) = (trained / "data" / "features").iterdir()
    said = refusal(capsys, "train", *own, *wanted, "--data.feature_dir", store)
    assert f"data.feature_dir: {store} holds features made otherwise" in said
    assert "wanted 'other'" in said
    image = next((scenes / "raw" / "val2014").iterdir())
    asked = ("predict", "--checkpoint", trained / "run", "--image", image, "--question", "What is it?")
    changed = shutil.copytree(Path(encoder[3]), tmp_path / "tower")
    _prepare_otherwise(changed)
    said = refusal(capsys, *asked, "--model.image_encoder.model", changed)
    assert "the visual features are not those of the training: preprocessing_details: trained on" in said


def _prepare_otherwise(folder: Path) -> None:
    """Changes how an encoder's pictures are prepared, and nothing else."""
    for name, keys, value in (
        ("open_clip_config.json", ("preprocess_cfg",), {"mean": [0.1, 0.2, 0.3]}),
        ("config.json", ("pretrained_cfg", "mean"), [0.1, 0.2, 0.3]),
        ("preprocessor_config.json", ("size",), {"height": 64, "width": 64}),
    ):
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        group = content
        for key in keys[:-1]:
            group = group.get(key, {})
        if keys[-1] in group:
            group[keys[-1]] = value
            path.write_text(json.dumps(content))


def test_a_copy_in_half_precision_stands_in_where_numbers_are_equal(encoder, trained, scenes, tmp_path, capsys):
    exact, half = (shutil.copytree(Path(encoder[3]), tmp_path / name / "tower") for name in ("exact", "half"))
    for folder, convert in ((exact, torch.Tensor.float), (half, torch.Tensor.half)):
        (path,) = folder.glob("*.safetensors")
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in load_file(path).items()}
        converted = {name: convert(t) if t.is_floating_point() else t for name, t in tensors.items()}
        save_file(converted, path, metadata={"format": "pt"})
    shutil.copytree(scenes / "data", tmp_path / "data")
    own = ("--task", "vqa", *encoder[:3], exact, *encoder[4:], "--data-dir", tmp_path / "data")
    run("cache-features", *own, "--workers", "0")
    run("train", *own, *SHORT, "--output-dir", tmp_path / "run")
    image = next((scenes / "raw" / "val2014").iterdir())
    asked = ("predict", "--checkpoint", tmp_path / "run", "--image", image, "--question", "What is it?")
    run(*asked, "--model.image_encoder.model", half)
    said = refusal(capsys, *asked, "--model.image_encoder.model", encoder[3])
    assert "the visual features are not those of the training: weights_sha256: trained on" in said


def test_an_unknown_kind_has_near_names(capsys):
    said = refusal(capsys, "train", "--task", "vqa", "--model.image_encoder.kind", "transformer")
    assert "unknown image encoder 'transformer'; did you mean 'transformers'?" in said
    assert "(known: open-clip, timm, transformers)" in said
