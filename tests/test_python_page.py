"""docs/python.md, run as it stands: its blocks share one namespace, in a folder with the runs and images it names."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.api.saved_runs import save_run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
TRAINING = PAGE.index("## Train")
BLOCKS = {match.start(): match[1] for match in re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)}
RUNS = {
    "runs/shop": "vqa", "runs/captions": "coco", "runs/entailment": "rte", "runs/lora": "vqa", "runs/both": "vqa+coco",
}  # fmt: skip
METHODS = {"runs/lora": {"tuner.name": "lora", "tuner.alpha": 1.0}}
IMAGES = ("shelf.jpg", "door.png")


@pytest.fixture
def folder(hub, tmp_path, monkeypatch) -> Path:
    """A folder with every run and image that the page names, on the packaged models, and a hub."""
    for name, task in RUNS.items():
        save_run(tmp_path / name, task, "demo", **METHODS.get(name, {}))
    for number, name in enumerate((*IMAGES, *(f"{number}.jpg" for number in range(20)))):
        Image.new("RGB", (120 + number, 90), ("red", "blue")[number % 2]).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(blocks) -> None:
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block, namespace)


def test_its_blocks_run_in_order(folder, capsys):
    run(block for place, block in BLOCKS.items() if place < TRAINING)
    printed = capsys.readouterr().out
    assert "(2, 192) float32" in printed
    assert "/me/shop" in printed
    assert re.search(r"^lora to plain weights in folded/lora/backbone; logits differ by \d", printed, re.M)
    assert re.search(r"\{'0': 0\.\d+, '1': 0\.\d+\}", printed)
    assert re.search(
        r"^Model\('runs/shop': task 'vqa', prompt-tuning on demo, [\d,]+ trained parameters", printed, re.M
    )


@pytest.mark.whole
def test_its_blocks_train_and_score_too(folder, capsys):
    run(BLOCKS.values())
    assert re.search(r"^\{'exact_match': [\d.]+\}$", capsys.readouterr().out, re.MULTILINE)


def test_every_block_is_five_lines_at_most():
    assert len(BLOCKS) >= 6
    assert max(sum(map(bool, block.splitlines())) for block in BLOCKS.values()) <= 5


def test_what_it_names_is_all_there_is():
    assert set(re.findall(r'"(runs/\w+)"', PAGE[:TRAINING])) == set(RUNS)
