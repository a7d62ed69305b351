"""What the docs name is there: files and keys that a run writes, tests, modules and links."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from data_prep.prepared import PreparedStats
from dept_vl.cli import make_parser
from dept_vl.experiments.ablation import ablate
from dept_vl.experiments.seeds import train_seeds
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.settings.load import load_config
from dept_vl.tasks.declaration import SplitDeclaration, TaskDeclaration

ROOT = Path(__file__).resolve().parents[1]
FILES = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
PACKAGES = ("dept_vl", "data_prep", "benchmarks", "tests", ".ci")
PYTHON = [str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
FOLDERS = {*PACKAGES, *(path.name for path in (ROOT / "dept_vl").iterdir() if path.is_dir())}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def placeholders(name: str) -> str:
    """Returns a file's name or a key as the page writes it: numbers, groups, scores and splits are placeholders."""
    for pattern, written in (
        (r"^step-\d{8}$", "step-<8 digits>"),
        (r"^seed-\d+$", "seed-<n>"),
        (r"-(test|val)\.(jsonl?)$", r"-<split>.\2"),
        (r"^lr/.*", "lr/<group>"),
        (r"^val/.*", "val/<score>"),
    ):
        name = re.sub(pattern, written, name)
    return name


def unknown(names) -> list[str]:
    """Returns the names that docs/files.md does not have, in backticks and whole."""
    written = {part for quoted in re.findall(r"`([^`\n]+)`", FILES) for part in (quoted, *quoted.split("/"))}
    return sorted({placeholders(name) for name in names} - written)


@pytest.fixture(scope="module")
def folder(t5_folder, label_data, tmp_path_factory) -> Path:
    """A run of two steps as one of several seeds, scored on two splits."""
    settings = {
        "task": "cola", "output_dir": str(tmp_path_factory.mktemp("docs") / "seeds"), "model.backbone": str(t5_folder),
        "data.max_source_length": 16, "data.batch_size": 8, "data.few_shot": 8, "tuner.budget_tokens": 20,
        "tuner.num_virtual_tokens": 4, "loop.max_steps": 2, "loop.eval_every_steps": 2, "loop.on_nan": "skip",
    }  # fmt: skip
    runs = train_seeds(load_config(None, settings), label_data, [0]).runs
    evaluate_run(runs[0].config, label_data, runs[0].run_dir, split="val", with_agreement=True)
    ablate(runs[0].config, label_data, runs[0].run_dir, states=["nothing"])
    return runs[0].run_dir.parent


def test_every_file_of_a_run_is_in_the_docs(folder):
    found = [path for path in folder.rglob("*") if path.parent.name != "tensorboard"]
    names = {path.name for path in found}
    assert {"run.json", "training.json", "few_shot.json", "results-val.json", "ablation-val.json"} <= names
    assert unknown(path.name for path in found if not path.name.startswith(".")) == []


def test_every_key_of_its_json_files_is_in_the_docs(folder):
    found = {path: json.loads(path.read_text()) for path in folder.rglob("*.json") if not path.name.startswith(".")}
    assert len(found) >= 10
    for path, content in found.items():
        for record in content if isinstance(content, list) else [content]:
            assert unknown(record) == [], path.name


def test_every_key_of_its_metrics_is_in_the_docs(folder):
    records = [json.loads(line) for line in (folder / "seed-0" / "metrics.jsonl").read_text().splitlines()]
    assert unknown(key for record in records for key in record) == []


def test_every_key_of_prepared_data_is_in_the_docs(tiny_data):
    assert unknown(json.loads((tiny_data / "features" / "random" / "index.json").read_text())) == []
    assert unknown({"dept_vl", *(field.name for field in dataclasses.fields(PreparedStats))} - {"folder"}) == []


def test_a_name_that_is_not_in_the_docs_is_found():
    assert unknown(["metrics.jsonl", "measured.jsonl", "val/accuracy"]) == ["measured.jsonl"]


def test_every_command_is_named():
    _, commands = make_parser()
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = {parser.prog for parser in commands.values()}  # without those of earlier versions
    assert sorted(name for name in names if not re.search(rf"{re.escape(name)}\b", text)) == []


@every_page
def test_named_tests_are_there(page):
    assert set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))) - TESTS == set()


@every_page
def test_named_modules_are_there(page):
    """They may be named from any of our folders on, as ``runs/open.py``; what a fenced block makes up is left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = [name for name in re.findall(r"`([\w/.]+\.py)`", text) if name.split("/")[0] in FOLDERS]
    assert [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in PYTHON)] == []


@every_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_field_of_a_declared_task_is_named():
    fields = {**TaskDeclaration.__dataclass_fields__, **SplitDeclaration.__dataclass_fields__}
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.split("## Your own rows")[1].split("\n## ")[0], re.MULTILINE)
    assert set(fields) == {name for row in rows for name in re.findall(r"`(\w+)`", row)}
