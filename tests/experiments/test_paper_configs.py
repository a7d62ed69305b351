"""Every config of the paper trains two steps on a small model, on made-up rows; real ones can be prepared."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from data_prep.prepare import prepare
from dept_vl.runs.session import Session
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train
from tests.data_prep.text_rows import made_up_rows, write_rows

PAPER = Path(__file__).parents[2] / "configs" / "paper"

ROWS = {
    "cola": ("glue_cola", "train", 60),
    "sst2": ("glue_sst2", "train", 1_060),
    "mrpc": ("glue_mrpc", "train", 60),
    "stsb": ("glue_stsb", "train", 60),
    "qnli": ("glue_qnli", "validation", 1_060),
    "winogrande": ("winogrande", "validation", 1_060),
    "rte": ("super_glue_rte", "train", 60),
    "superglue-boolq": ("super_glue_boolq", "validation", 200),
    "superglue-cb": ("super_glue_cb", "train", 250),
    "superglue-multirc": ("super_glue_multirc", "validation", 60),
    "superglue-wic": ("super_glue_wic", "train", 60),
    "superglue-wsc": ("super_glue_wsc", "train", 60),
}
"""Task -> folder in ``nlp/hf``, the file whose rows stand for the training split, and how many of them."""

RENAMED = {"rte": {"premise": "sentence1", "hypothesis": "sentence2"}}
"""Task -> columns of its file that have other names in the task's own data set."""

_FILES = [path for path in sorted(PAPER.rglob("*.yaml")) if path.stem.split("-k")[0] in ROWS]  # images train elsewhere
_ROWS = {path.parent: path for path in reversed(_FILES)}
CONFIGS = [path for path in _FILES if path.parent.name == "dept" or path == _ROWS[path.parent]]
"""DePT's, and the first of every other row: the others differ from it in task and length."""

SMALL = {
    "dept": {"budget_tokens": 20, "num_virtual_tokens": 4, "rank": None, "allow_nearest": True},
    "prompt-tuning": {"num_virtual_tokens": 4},
    "lora": {"rank": 2},
    "adapter": {"bottleneck": 4, "reduction": None},
    "adapterdrop": {"bottleneck": 4, "reduction": None, "layers": [1]},
    "attempt": {"num_virtual_tokens": 4, "attention_width": 5, "sources": []},
    "mpt": {"num_virtual_tokens": 4, "teachers": []},
    "lst": {"reduction": 2, "encoder_layers": None, "decoder_layers": None, "fisher_rows": 4},
}
"""Method -> sizes for the tiny T5."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Made-up rows of every task of `ROWS`, prepared under protocol ``paper``."""
    root = tmp_path_factory.mktemp("paper")
    for task, (_, _, count) in ROWS.items():
        for split, rows in (("train", count), ("validation", 60)):
            write_rows(root / "raw" / task / f"{split}.jsonl", made_up_rows(task, rows))
        prepare(get_task(task), root / "raw" / task, root / "data", protocol="paper", subset=True)
    return root / "data"


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(PAPER)))
def test_two_steps_of_a_config(path, data_dir, session, t5_folder, tmp_path):
    sizes = SMALL.get(load_config(path).tuner.name, {})
    small = {
        "model.backbone": str(t5_folder),
        "output_dir": str(tmp_path / "run"),
        "init.from": None,
        "data.max_source_length": 16,
        **{f"tuner.{key}": value for key, value in sizes.items()},
        "loop.max_steps": 2,
        "loop.eval_every_steps": 2,
        "loop.eval_rows": 4,
    }
    result = train(load_config(path, small), data_dir, session=session)
    assert result.progress.step == 2


def test_real_rows_of_every_task_are_prepared(shared_data, tmp_path):
    for task, (folder, train_file, count) in ROWS.items():
        for split, source, rows in (("train", train_file, count), ("validation", "validation", 60)):
            with gzip.open(shared_data / "nlp" / "hf" / folder / f"{source}.jsonl.gz", "rt", encoding="utf-8") as file:
                records = [json.loads(line) for line in islice(file, rows)]
            names = RENAMED.get(task, {})
            renamed = [{names.get(name, name): value for name, value in record.items()} for record in records]
            write_rows(tmp_path / "raw" / task / f"{split}.jsonl", renamed)
        stats = prepare(get_task(task), tmp_path / "raw" / task, tmp_path / "data", protocol="paper", subset=True)
        assert stats.splits["train"].rows > 0, task
