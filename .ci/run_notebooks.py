"""Runs the notebooks of examples/ and stores what they print and show.

    python .ci/run_notebooks.py

They run in a folder that is gone afterwards. Warnings of other libraries are not stored: they name paths of a machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs every notebook and writes it anew."""
    os.environ["PYTHONPATH"] = str(ROOT)
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
            ).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
                for output in cell.outputs:
                    output.get("data", {}).pop("image/jpeg", None)  # what image/png shows too
        notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
        nbformat.write(notebook, path)
        sys.stdout.write(f"{path.relative_to(ROOT)}: run\n")


if __name__ == "__main__":
    main()
