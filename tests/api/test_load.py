"""Which runs are loaded, and what is said of those that are not, before torch is imported."""

import shutil
import subprocess
import sys

import pytest

import dept_vl
from dept_vl.errors import CheckpointError, ConfigError
from tests.api.saved_runs import save_run


@pytest.fixture
def run(t5_folder, tmp_path):
    return save_run(tmp_path / "run", "cola", t5_folder)


def test_a_frozen_model_that_has_moved_is_given_anew(t5_folder, tmp_path):
    moved = shutil.copytree(t5_folder, tmp_path / "moved")
    run = save_run(tmp_path / "run", "cola", moved)
    before = dept_vl.load(run).score("the red cube")
    here = moved.rename(tmp_path / "here")
    with pytest.raises(
        ConfigError, match=r"model\.backbone: .*run recorded '.*moved', and nothing .*give backbone=PATH"
    ):
        dept_vl.load(run)
    assert dept_vl.load(run, backbone=here).score("the red cube") == before
    assert dept_vl.load(str(run), backbone=str(here)).config.model.backbone == str(here)


def test_an_image_encoder_that_has_moved_is_named(t5_folder, tmp_path):
    run = save_run(tmp_path / "run", "vqa", t5_folder)
    text = (run / "config.yaml").read_text()
    assert "model: demo" in text
    (run / "config.yaml").write_text(text.replace("model: demo", "model: local-dir:/gone/clip"))
    with pytest.raises(ConfigError, match=r"model\.image_encoder.model: .*nothing is there.*give image_encoder=PATH"):
        dept_vl.load(run)
    assert dept_vl.load(run, image_encoder="demo").task == "vqa"


def test_another_backbone_than_the_recorded_one_is_refused(run, save_tiny_t5, tmp_path):
    other = save_tiny_t5(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"backbone\.weights_sha256: saved for '\w+', this run has '\w+'"):
        dept_vl.load(run, backbone=other)


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda run: shutil.rmtree(run), {}, r"run: no run here .* or name its folder with dept_vl\.load\(RUN\)"),
        (lambda run: (run / "adapter_model.safetensors").unlink(), {}, "run: no adapter here"),
        (lambda run: None, {"precision": "fp16"}, r"loop\.precision: .*got 'fp16'"),
        (lambda run: None, {"revision": "main"}, "revision: 'main' has no effect on the folder .*run"),
        (lambda run: (run / "config.yaml").write_text("task: vqaa"), {}, "unknown task 'vqaa'; did you mean 'vqa'"),
        (
            lambda run: (
                (run / "seeds.yaml").write_text((run / "config.yaml").read_text()) and (run / "config.yaml").unlink()
            ),
            {},
            r"run: holds several seeds; name one run of it with dept_vl\.load\(RUN\)",
        ),
    ],
)
def test_what_cannot_be_loaded_is_said(run, spoil, options, message):
    spoil(run)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        dept_vl.load(run, **options)


LAZY = """
import sys
import dept_vl
assert {"load", "Model"} <= set(dir(dept_vl)) and set(dept_vl.__all__) <= set(dir(dept_vl))
assert "pydantic" not in sys.modules
try:
    dept_vl.load("absent")
except ValueError as error:
    assert "absent: no run here" in str(error)
assert not {"torch", "huggingface_hub", "dept_vl.evaluators"} & set(sys.modules)
from dept_vl import load
assert load is dept_vl.load
"""


def test_importing_and_refusing_need_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_name_gives_near_ones():
    with pytest.raises(AttributeError, match="module 'dept_vl' has no attribute 'laod'; did you mean 'load'"):
        _ = dept_vl.laod
    with pytest.raises(AttributeError, match=r"module 'dept_vl' has no attribute 'unheard_of'$"):
        _ = dept_vl.unheard_of


def test_everything_offered_is_there():
    for name in dept_vl.__all__:
        assert getattr(dept_vl, name) is not None
