"""The demo shows the method: each of DePT's two parts carries a share of what a short run learns."""

import json
from pathlib import Path

import pytest

from dept_vl.cli import main
from dept_vl.models.demo import DEMO
from dept_vl.settings.declared import check_declaration
from dept_vl.settings.demo import choose_settings

STEPS = ("--loop.max_steps", "150", "--loop.eval_every_steps", "150", "--loop.trackers", "[]")


def ablated(task, folder, metric):
    """Trains shortly, and returns the score of all parts together and of the run without each."""
    assert main(["train", "--task", task, "--output-dir", str(folder), *STEPS]) == 0
    assert main(["ablate", str(folder), "--set-to", "nothing"]) == 0
    result = json.loads((folder / "ablation-val.json").read_text())
    assert {group["part"] for group in result["ablated"]} == {"soft_prompt", "lowrank", "dept", "features"}
    return result["trained"][metric], {one["part"]: one["metrics"][metric] for one in result["ablated"]}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPT_VL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_packaged_projection_is_frozen_on_drawn_scenes_alone():
    assert choose_settings(Path(DEMO), {"task": "vqa"}).model.frozen_projection == DEMO
    assert choose_settings(Path(DEMO), {"task": "coco"}).model.frozen_projection == DEMO
    own = {"name": "mine", "kind": "caption", "image": "photo", "target": "caption"}
    declared = choose_settings(Path(DEMO), {"task": "mine", "declaration": check_declaration(own, "task")})
    assert declared.model.frozen_projection is None


@pytest.mark.whole
def test_questions(tmp_path):
    trained, without = ablated("vqa", tmp_path / "run", "vqa_accuracy")
    assert trained > 75
    assert without["dept"] < trained - 15
    assert without["lowrank"] < trained - 3
    assert without["soft_prompt"] < trained - 3
    assert without["features"] < trained - 35


@pytest.mark.whole
def test_captions(tmp_path):
    trained, without = ablated("coco", tmp_path / "run", "CIDEr")
    assert trained > 1.3 * without["dept"]
    assert trained > 1.3 * without["features"]
