"""A run goes to the hub and comes back by its id."""

import pytest

import dept_vl
from dept_vl.errors import CheckpointError
from tests.api.saved_runs import save_run

NAME = "me/cola"


def test_what_is_pushed_is_loaded_by_its_id_and_answers_the_same(hub, t5_folder, tmp_path):
    model = dept_vl.load(save_run(tmp_path / "run", "cola", t5_folder))
    settings = {"model.backbone": "me/tiny-t5"}
    assert model.push_to_hub(NAME, settings=settings, private=True) == f"{hub.endpoint}/{NAME}"
    assert hub.repositories[NAME].private
    assert dept_vl.load(NAME, backbone=t5_folder).score("the red cube") == model.score("the red cube")
    with pytest.raises(CheckpointError, match="me/none: no such folder here, and no such model at"):
        dept_vl.load("me/none")


def test_an_adapter_of_the_hub_is_kept_by_its_id(hub, t5_folder, tmp_path):
    other = dept_vl.load(save_run(tmp_path / "other", "cola", t5_folder, seed=1))
    other.push_to_hub(NAME, settings={"model.backbone": "me/tiny-t5"})
    model = dept_vl.load(save_run(tmp_path / "run", "cola", t5_folder))
    with model.adapter(NAME):
        assert model.score("the red cube") == other.score("the red cube")
    asked = len(hub.requests)
    with model.adapter(NAME):
        assert model.score("the red cube") == other.score("the red cube")
    assert len(hub.requests) == asked
