"""Writes scored runs as one HTML page: no network, no file beside it, of a bounded size."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import ConfigError
from dept_vl.reports.comparison import compare_runs
from dept_vl.reports.escaped import escaped_template
from dept_vl.reports.scored_runs import ScoredRun, read_scored_runs
from dept_vl.reports.studies import describe_comparison
from dept_vl.system.atomic import check_output_file, write_bytes
from dept_vl.system.extras import require_extra
from dept_vl.system.version import __version__

if TYPE_CHECKING:
    from dept_vl.reports.page.cards import Card
    from dept_vl.reports.page.rows import RunRows
    from dept_vl.reports.page.thumbnails import Pictures

logger = logging.getLogger(__name__)

MAX_BYTES = 5_000_000
"""Largest page."""

MAX_CARDS = 2_000
_CARDS = (MAX_CARDS, 1_000, 500, 250, 100, 25)
"""Rows shown on a page; fewer where they do not fit."""

_ASSETS = files("dept_vl") / "assets" / "report"


@dataclass(frozen=True)
class WrittenPage:
    """What was written.

    Attributes:
        size_bytes: Of the file.
        cards: Rows that it shows.
        missing: Images that were not found, or could not be read.
        images: Images that the rows shown have.
    """

    size_bytes: int
    cards: int
    missing: int
    images: int


@dataclass(frozen=True)
class _Gallery:
    """Rows to be shown: of one run, or those to which several of one task gave different answers."""

    title: str
    runs: Mapping[str, RunRows]
    rows: Sequence[int]


def check_page(folders: Sequence[Path], output: Path, images: Path | None = None) -> list[ScoredRun]:
    """Refuses a page that cannot be made or written, and returns the runs that it is of.

    Raises:
        ConfigError: No run is named, the name says no page, it cannot be written (`check_output_file`), there is no
            such folder of images, or an extra is not installed.
        CheckpointError: A folder holds no test scores.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--html {output}: a page is written as .html; name the file so")
    if not folders:
        raise ConfigError("--html: name the folder of a run that `dept-vl eval` has scored, or several")
    check_output_file("--html", output)
    if images is not None and not images.is_dir():
        raise ConfigError(f"--images {images}: no such folder")
    runs = [run for folder in folders for run in read_scored_runs(folder)]
    require_extra("report", "`dept-vl report --html FILE`")
    return runs


def write_page(folders: Sequence[Path], output: Path, *, images: Path | None = None) -> WrittenPage:
    """Writes a page of one scored run, or of several side by side, whole or not at all.

    Args:
        folders: Of one run; or of several runs, seeds or transfers, of which are shown the scores and the rows to which
            they gave different answers.
        output: The file.
        images: The folder that paths of images start from, where they have moved.

    Raises:
        ConfigError: As `check_page`, and `compare_runs`.
        CheckpointError: A folder holds no test scores, or no answers, or those of another evaluation.
    """
    scored = check_page(folders, output, images)
    from dept_vl.reports.page.rows import read_rows
    from dept_vl.reports.page.sections import headline, run_names, run_section

    is_one = len({run.path.parent for run in scored}) == 1 and len({run.task for run in scored}) == len(scored)
    comparison = None if is_one else describe_comparison(compare_runs(folders))
    found = [read_rows(run, images) for run in scored]
    names = [one.task.name for one in found] if is_one else run_names([one.folder for one in found])
    page: dict[str, Any] = {"comparison": comparison, "version": __version__, "max_cards": MAX_CARDS}
    if is_one:
        page["runs"] = [run_section(one, f"run-{number}") for number, one in enumerate(found)]
    else:
        page["heads"] = [(name, headline(one)) for name, one in zip(names, found, strict=True)]
        page["notes"] = [f"{name}: {note}" for name, one in zip(names, found, strict=True) for note in one.notes]
    content, written = _fitted(page, _galleries(dict(zip(names, found, strict=True)), is_one=is_one))
    write_bytes(output, content)
    return written


def _galleries(runs: Mapping[str, RunRows], *, is_one: bool) -> list[_Gallery]:
    """Returns what rows are shown: each task's of one run, or of several runs of a task those that they differ on."""
    from dept_vl.reports.page.cards import rows_shown

    if is_one:
        groups = [{name: one} for name, one in runs.items()]
    else:
        by_task: dict[str, dict[str, RunRows]] = {}
        for name, one in runs.items():
            by_task.setdefault(one.task.name, {})[name] = one
        groups = [group for group in by_task.values() if len(group) > 1]
    return [_Gallery(next(iter(group.values())).task.name, group, rows_shown(group)) for group in groups]


def _fitted(page: Mapping[str, Any], galleries: Sequence[_Gallery]) -> tuple[bytes, WrittenPage]:
    """Returns the page with as many rows, and images as large, as `MAX_BYTES` has room for."""
    from dept_vl.reports.page.cards import cards_of
    from dept_vl.reports.page.thumbnails import encode_pictures

    template = escaped_template("report", "page.html.j2")
    for limit in _CARDS:
        share = max(1, limit // max(1, len(galleries)))
        shown = [(one, cards_of(one.runs, one.rows[:share])) for one in galleries]
        pictures = _pictures(shown)
        names = {path: f"i{number}" for number, path in enumerate(pictures.small)}
        context = _context(page, shown, pictures, names)
        room = MAX_BYTES - len(_encoded(template.render(**context, uris={})))
        uris = encode_pictures(pictures.small, room)
        if uris is not None or limit == _CARDS[-1]:
            break
    sizes = {names[path]: uri for path, uri in (uris or {}).items()}
    content = _encoded(template.render(**context, uris=sizes))
    if pictures.missing:
        logger.warning(
            "%d of %d images are drawn as a placeholder (%s); if they have moved, name their folder with --images",
            len(pictures.missing), len(pictures.missing) + len(pictures.small), next(iter(pictures.missing.values())),
        )  # fmt: skip
    every = len(pictures.missing) + len(pictures.small)
    return content, WrittenPage(len(content), sum(len(cards) for _, cards in shown), len(pictures.missing), every)


def _encoded(text: str) -> bytes:
    """Returns UTF-8; what the name of a folder has that is none is written as an escape."""
    return text.encode(errors="backslashreplace")


def _pictures(shown: Sequence[tuple[_Gallery, Sequence[Card]]]) -> Pictures:
    """Returns the images of the rows shown."""
    from dept_vl.reports.page.thumbnails import open_pictures

    places = {}
    for gallery, cards in shown:
        root = next(iter(gallery.runs.values())).image_root
        places.update({path: root for card in cards for path in card.images})
    return open_pictures(places)


def _context(
    page: Mapping[str, Any],
    shown: Sequence[tuple[_Gallery, Sequence[Card]]],
    pictures: Pictures,
    names: Mapping[str, str],
) -> dict[str, Any]:
    from dept_vl.reports.page.sections import size_lines

    galleries = [
        {
            "title": gallery.title, "cards": cards, "of": len(gallery.rows), "several": len(gallery.runs) > 1,
            "right_means": next(iter(gallery.runs.values())).right_means,
            "kinds": {kind: sum(card.kind == kind for card in cards) for kind in ("right", "wrong", "mixed")},
        }
        for gallery, cards in shown
    ]  # fmt: skip
    script = (_ASSETS / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        **page, "galleries": galleries, "names": names, "missing": pictures.missing, "script": script,
        "script_sha256": digest, "style": (_ASSETS / "page.css").read_text(encoding="utf-8"),
        "image_sizes": size_lines(list(pictures.sizes.values())) if pictures.sizes else [],
        "num_images": len(pictures.missing) + len(pictures.small),
    }  # fmt: skip
