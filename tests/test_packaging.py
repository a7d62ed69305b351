"""What is installed: packages, assets and the shipped settings, without a second copy in the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What a wheel holds, as setuptools collects it."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["egg_info", "--egg-base", str(folder), "build_py", "--build-lib", str(folder / "lib")]
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "Package would be ignored" not in done.stderr  # a page for each folder, which pip prints even if quiet
    return folder / "lib"


def files(folder: Path, pattern: str = "*.yaml") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def test_the_shipped_settings_are_installed_in_the_package(installed):
    assert files(installed / "dept_vl" / "configs") == files(ROOT / "configs")
    assert files(installed / "dept_vl" / "assets") == files(ROOT / "dept_vl" / "assets")
    page = installed / "dept_vl" / "assets" / "report"
    assert {path.name for path in page.iterdir()} == {"page.html.j2", "page.css", "page.js"}
    assert (
        files(installed / "dept_vl" / "assets" / "ui", "*") == files(ROOT / "dept_vl" / "assets" / "ui", "*") != set()
    )
    assert {path.name for path in installed.iterdir()} == {"dept_vl", "data_prep"}
    assert not (installed / "data_prep" / "demo_models").exists()


@pytest.mark.parametrize("name", ["vqa/dept", "configs/vqa/dept.yaml"])
def test_they_are_found_by_name_outside_a_checkout(installed, tmp_path, name):
    script = "import sys\nfrom dept_vl.cli import main\nsys.exit(main(['configs']) or main(['train', *sys.argv[1:]]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "--config", name, "--data-dir", "absent"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"files: {installed / 'dept_vl' / 'configs'}" in done.stdout
    assert "  vqa/dept " in done.stdout
    assert "accelerate" not in done.stdout.partition("files:")[0]
    assert done.returncode == 2
    assert "absent/vqa/train.parquet: no such prepared split" in done.stderr
