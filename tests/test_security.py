"""What nothing in the package may do, whoever wrote the files it reads (docs/security.md)."""

import ast
import importlib.util
import json
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.models.language.load import load_backbone
from tests.bad_inputs.bombs import open_bombs

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("dept_vl", "data_prep") for path in (ROOT / folder).rglob("*.py"))

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "dill.load",
    "dill.loads", "joblib.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "subprocess.getoutput", "shutil.unpack_archive", "urllib.request.urlopen",
    "torch.jit.load", "torch.hub.load",
}  # fmt: skip
"""Calls that run what a file or an argument says, or unpack an archive, or open a URL."""

PLAIN_TAR = "r:"
"""The mode in which a tar may be read, a member's bytes at a time: neither is packed data unpacked nor a file
written."""


def _name(node: ast.expr) -> str:
    """Returns a dotted name, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and _name(node.value):
        return f"{_name(node.value)}.{node.attr}"
    return ""


def _keyword(call: ast.Call, name: str) -> object:
    value = next((word.value for word in call.keywords if word.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else value


def dangers(source: str) -> list[str]:
    """Returns the dangerous calls in a module, as ``line: what``."""
    tree = ast.parse(source)
    found = []
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        first, _, rest = _name(call.func).partition(".")
        name = imported.get(first, first) + (f".{rest}" if rest else "")
        if name in FORBIDDEN:
            found.append(f"{call.lineno}: {name}")
        if name == "tarfile.open" and [getattr(word, "value", None) for word in call.args[1:]] != [PLAIN_TAR]:
            found.append(f"{call.lineno}: tarfile.open in another mode than {PLAIN_TAR!r}")
        if name.rpartition(".")[2] in ("extract", "extractall"):
            found.append(f"{call.lineno}: {name} writes what an archive says")
        if name == "torch.load" and _keyword(call, "weights_only") is not True:
            found.append(f"{call.lineno}: torch.load without weights_only=True")
        if name in ("numpy.load", "np.load") and _keyword(call, "allow_pickle") not in (None, False):
            found.append(f"{call.lineno}: numpy.load with pickle")
        if name.startswith("subprocess.") and _keyword(call, "shell") not in (None, False):
            found.append(f"{call.lineno}: {name} with a shell")
        if _keyword(call, "trust_remote_code") not in (None, False):
            found.append(f"{call.lineno}: trust_remote_code")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_a_file_says(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "import os\nos.system('ls')", "from os import system\nsystem('ls')",
        "import pickle as p\np.loads(b)",
        "import torch\ntorch.load(f)", "import torch\ntorch.load(f, weights_only=False)",
        "import subprocess\nsubprocess.run('ls', shell=True)", "import yaml\nyaml.load(f)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)", "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "import numpy as np\nnp.load(f, allow_pickle=True)", "import tarfile\ntarfile.open(f)",
        "import tarfile\ntarfile.open(f, 'r:gz')", "import tarfile\ntarfile.open(f, mode)", "tar.extractall('.')",
        "tar.extract(member)",
    ],
)  # fmt: skip
def test_the_check_sees_each_danger(source):
    assert len(dangers(source)) == 1


def _remote_code(folder: Path, source: Path, settings: dict) -> Path:
    """Copies a backbone and adds code that leaves a file behind when it is imported."""
    shutil.copytree(source, folder)
    code = f"open({str(folder / 'hacked')!r}, 'w').close()\nclass Evil:\n    pass\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
        (folder / name).write_text(code)
    for name, added in settings.items():
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **added}))
    return folder


_MAP = {
    "AutoConfig": "configuration_evil.Evil",
    "AutoModel": "modeling_evil.Evil",
    "AutoModelForSeq2SeqLM": "modeling_evil.Evil",
    "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
}


@pytest.mark.parametrize(
    "settings",
    [
        {"config.json": {"auto_map": _MAP}},
        {"config.json": {"auto_map": _MAP, "model_type": "evil"}},
        {"config.json": {"auto_map": _MAP, "trust_remote_code": True}},
        {"tokenizer_config.json": {"auto_map": _MAP, "tokenizer_class": "Evil"}},
        {"config.json": {"_attn_implementation_internal": "evil/kernels"}},
        {"config.json": {"quantization_config": {"quant_method": "evil"}}},
    ],
    ids=["model", "model-type", "trust", "tokenizer", "attention-kernel", "quantization"],
)
def test_code_beside_a_backbone_is_not_run(tmp_path, t5_folder, settings):
    folder = _remote_code(tmp_path / "t5", t5_folder, settings)
    with suppress(ConfigError):  # refusing the backbone is as good as loading it without the code
        backbone, _ = load_backbone(str(folder))
        assert type(backbone.model).__module__.startswith("transformers.")
    assert not (folder / "hacked").exists()


def test_a_backbone_of_pickled_weights_is_refused(tmp_path, t5_folder):
    import torch

    folder = tmp_path / "t5"
    shutil.copytree(t5_folder, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot load"):
        load_backbone(str(folder))


def _check_floors():
    spec = importlib.util.spec_from_file_location("check_floors", ROOT / ".ci" / "check_floors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_floor_is_the_first_fixed_release_or_later():
    check = _check_floors()
    assert check.problems(check.floors(ROOT / "pyproject.toml")) == []


def test_a_floor_that_is_too_low_is_named(tmp_path):
    check = _check_floors()
    low = tmp_path / "pyproject.toml"
    low.write_text((ROOT / "pyproject.toml").read_text().replace('"torch>=2.10"', '"torch>=2.6"'))
    lines = check.problems(check.floors(low))
    assert len(lines) == 1
    assert lines[0].startswith("torch: the floor is 2.6, should be 2.10.0 (CVE-2025-32434")


def test_of_several_floors_the_lowest_is_checked_and_the_highest_installed(tmp_path):
    extras = '[project.optional-dependencies]\na = ["torch>=2.10", "x"]\nb = ["torch>=2.11"]\nc = ["torch>=2.9"]\n'
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = []\n{extras}")
    each = [_check_floors().floors(tmp_path / "pyproject.toml", is_together=both) for both in (False, True)]
    assert [(str(one["torch"]), one["x"]) for one in each] == [("2.9", None), ("2.11", None)]


def test_what_is_installed_satisfies_every_declared_range():
    import tomllib

    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True), text


def test_a_bomb_takes_little_memory(tmp_path, fresh_process):
    assert fresh_process.run(open_bombs, tmp_path) == 0, fresh_process.printed()
    lines = [line.split() for line in fresh_process.printed().splitlines()]
    assert {error for _, error, _ in lines} == {"DataError", "CheckpointError"}
    assert len(lines) == 7
    for name, _, kib in lines:
        assert int(kib) < 128 * 1024, name  # they unpack to 40 MB ... 11 GB


def test_a_run_of_the_command_line_opens_no_socket(tmp_path, monkeypatch, t5_folder):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert main(["info", "--config", "demo"]) == 0
    load_backbone(str(t5_folder))
