"""What the bombs among the cases take, measured in a process of its own."""

import resource
import sys
from pathlib import Path

from data_prep.raw.text_files import read_rows
from dept_vl.data.images import open_image
from dept_vl.evaluators.official_files import load_results
from dept_vl.models.adapter.released_format import read_released
from tests.bad_inputs import images, predictions, released, text_files
from tests.bad_inputs.case import Base

READERS = {
    "image/png-bomb": lambda folder: open_image(folder / "picture.jpg"),
    "image/png-bomb-below-pillows-limit": lambda folder: open_image(folder / "picture.jpg"),
    "image/png-text-bomb": lambda folder: open_image(folder / "picture.jpg"),
    "image/jpeg-bomb": lambda folder: open_image(folder / "picture.jpg"),
    "predictions/gz-bomb": lambda folder: load_results(folder / "p.json", "question_id", "answer"),
    "text/gz/bomb": lambda folder: list(read_rows(folder / "raw" / "train.jsonl.gz", ["sentence"])),
    "bin/zip-bomb": lambda folder: read_released(folder / "cola"),
}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def open_bombs(root: Path) -> None:
    """Writes every bomb, then opens one after the other.

    Prints a line each: the case, the error, and by how many KiB the process's peak of memory grew.
    """
    cases = {case.name: case for module in (images, predictions, released, text_files) for case in module.CASES}
    base = Base(*[root] * 7)
    folders = {name: root / name.replace("/", "-") for name in READERS}
    before = 0
    for name, folder in folders.items():
        folder.mkdir()
        cases[name].make(folder, base)  # writing one takes what it unpacks to; the peak is measured from there on
    for name, folder in folders.items():
        before = _peak()
        try:
            READERS[name](folder)
        except Exception as error:  # the test says which there may be
            sys.stdout.write(f"{name} {type(error).__name__} {_peak() - before}\n")
