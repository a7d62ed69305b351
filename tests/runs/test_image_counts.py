"""Rows of several images: what the settings have room for is said before anything is opened."""

import pytest

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.runs.refusals import check_images
from dept_vl.settings.load import load_config

THREE = "{name: three, kind: question, template: 'ask: {query}', image: [a, b, c], target: reply}"


def test_more_images_than_the_projection_tells_apart_are_refused_before_the_first_step(tmp_path):
    (tmp_path / "three.yaml").write_text(THREE)

    def config(projection):
        return load_config(None, {"task": str(tmp_path / "three.yaml"), "model.visual_projection": projection})

    check_images(config("linear"), ["train"])
    with pytest.raises(ConfigError, match=r"'vl-t5' tells 2 images of a row apart.* rows of 'three' have 3; use model"):
        check_images(config("vl-t5"), ["test"])


def test_tasks_of_one_and_two_images_do_not_share_a_step():
    def config(**mix):
        return load_config(None, {"task": "vqa+nlvr2", "model.visual_projection": "vl-t5", **mix})

    with pytest.raises(ConfigError, match=r"mix\.batches: .*\(vqa 1, nlvr2 2\).*set mix\.batches=one-task"):
        check_images(config(), ["train", "val"])
    check_images(config(), ["test"])
    check_images(config(**{"mix.batches": "one-task"}), ["train", "val"])
    check_images(load_config(None, {"task": "vqa+coco"}), ["train"])


def test_the_command_line_says_so_and_leaves_nothing(tmp_path, capsys):
    words = ["train", "--task", "vqa+nlvr2", "--config", "demo", "--output-dir", str(tmp_path / "run")]
    assert main([*words, "--tuner", "lora", "--data-dir", str(tmp_path)]) == 2
    assert not (tmp_path / "run").exists()
    assert "mix.batches: rows of these tasks have different numbers of images" in capsys.readouterr().err
