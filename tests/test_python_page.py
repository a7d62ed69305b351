"""docs/python.md, run as it stands: its blocks share one namespace, in a folder with the runs and images it names."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.api.saved_runs import save_run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RUNS = {"runs/shop": "vqa", "runs/captions": "coco", "runs/entailment": "rte"}
IMAGES = ("shelf.jpg", "door.png")


@pytest.fixture
def folder(hub, tmp_path, monkeypatch) -> Path:
    """A folder with every run and image that the page names, on the packaged models, and a hub."""
    for name, task in RUNS.items():
        save_run(tmp_path / name, task, "demo")
    for color, name in zip(("red", "blue"), IMAGES, strict=True):
        Image.new("RGB", (120, 90), color).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_blocks_run_in_order(folder, capsys):
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, namespace)
    printed = capsys.readouterr().out
    assert "(2, 192) float32" in printed
    assert "/me/shop" in printed
    assert re.search(r"\{'0': 0\.\d+, '1': 0\.\d+\}", printed)
    assert re.search(
        r"^Model\('runs/shop': task 'vqa', prompt-tuning on demo, [\d,]+ trained parameters", printed, re.M
    )


def test_every_block_is_five_lines_at_most():
    assert len(BLOCKS) >= 6
    assert max(len(block.strip().splitlines()) for block in BLOCKS) <= 6


def test_what_it_names_is_all_there_is():
    assert set(re.findall(r'"(runs/\w+)"', PAGE)) == set(RUNS)
