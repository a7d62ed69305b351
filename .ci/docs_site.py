"""What mkdocs.yml cannot say: pages of the site that are no file of ``docs/``, and Markdown that holds there too.

README.md is its first page, a notebook is shown as it was run, settings are a table of the schema, and every module has
its docstrings on a page. Markdown is written for GitHub, where a file may link to any other and what belongs to an item
of a list stands below its text; here both are made to fit. Nothing of this imports torch.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dept_vl.evaluators import EVALUATORS
from dept_vl.settings.help import settings_of
from dept_vl.settings.schema import TrainConfig
from dept_vl.tuners.recipes import recipe_notes

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "index.md": "README.md",
    "own-photos.md": "examples/own_photos.ipynb",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Page -> the file of the checkout that it is made of."""
PUBLIC = {
    "dept_vl": ["dept_vl", "dept_vl.errors"],
    "Callbacks": ["dept_vl.runs.callbacks"],
    "Evaluators": ["dept_vl.evaluators"],
    "Tasks": ["dept_vl.tasks"],
}
"""What users import: title of a page -> its modules. Other modules are for contributors, on a page a package."""
PAST = ("changelog", "decisions/")
"""Pages whose names of modules may be those of earlier versions."""

FENCE = re.compile(r"^( *)(```+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
OUTER_FENCE = re.compile(r"^(```+).*?^\1 *$", re.MULTILINE | re.DOTALL)
ITEM = re.compile(r"^(?P<mark>- |\d\. )(?P<text>.*\n(?: *\n|  .*(?:\n|\Z))*)", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
NAME = re.compile(r"(?<![`\[])`((?:dept_vl|data_prep)(?:\.\w+)+)`(?!`)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the navigation's section of the API with the pages of modules."""
    entries = [{title: _page(title)} for title in api_pages()]
    section = next(section for section in config.nav if "API" in section)
    section["API"] = [*section["API"], *entries[: len(PUBLIC)], {"For contributors": entries[len(PUBLIC) :]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are no file of ``docs/``."""
    from mkdocs.structure.files import File

    pages = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in SOURCES.items()}
    pages |= {page: notebook_page(pages[page]) for page, source in SOURCES.items() if source.endswith(".ipynb")}
    pages["settings.md"] = settings_page()
    for title, modules in api_pages().items():
        parts = [f"# {title}", *(f"::: {module}" for module in modules)]
        if title == "Evaluators":
            parts.insert(1, evaluator_table())
        pages[_page(title)] = "\n\n".join(parts)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns a page with links that lead to the site's pages; other files of the checkout are put beside them."""
    from mkdocs.structure.files import File

    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))
    pages = {source: page for page, source in SOURCES.items()}

    def on_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        target = pages.get(path, path.removeprefix("docs/"))
        if target == path and (ROOT / path).is_file():
            target = f"checkout/{path}"
            if files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
        return posixpath.relpath(target, posixpath.dirname(here)) + (link[2] or "")

    def linked(text: str) -> str:
        text = LINK.sub(on_site, text)
        return text if here.startswith(PAST) else NAME.sub(r"[`\1`][\1]", text)

    with_lists = _outside(OUTER_FENCE, lambda text: ITEM.sub(_four_spaces, text), markdown)
    return _outside(FENCE, linked, with_lists)


def _four_spaces(item: re.Match[str]) -> str:
    """Returns an item of a list with what belongs to it four spaces in, whatever the width of its mark."""
    return item["mark"] + re.sub(f"^ {{{len(item['mark'])}}}", "    ", item["text"], flags=re.MULTILINE)


def _outside(fences: re.Pattern[str], change: Callable[[str], str], markdown: str) -> str:
    parts, at = [], 0
    for fence in fences.finditer(markdown):
        parts += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def api_pages() -> dict[str, list[str]]:
    """Returns title of a page -> the modules whose docstrings it has; a module is on one page alone."""
    pages = dict(PUBLIC)
    shown = {module for modules in PUBLIC.values() for module in modules}
    for top in ("dept_vl", "data_prep"):
        for path in sorted((ROOT / top).rglob("*.py"), key=lambda path: path.with_suffix("").parts):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts).removesuffix(".__init__")
            if module not in shown and module != f"{top}.__main__":
                pages.setdefault(".".join(parts[:2]) if len(parts) > 2 else f"{top}.*", []).append(module)
    return pages


def _page(title: str) -> str:
    return f"api/{title.lower().replace('.*', '-modules')}.md"


def notebook_page(notebook: str) -> str:
    """Returns a notebook as Markdown: its text, its code and the outputs that are stored in it."""
    parts = []
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data") or {"text/plain": output["text"]}
            if "image/png" in data:
                image = "".join(data["image/png"]).strip()
                parts.append(f'<p><img alt="what the cell shows" src="data:image/png;base64,{image}"></p>')
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def evaluator_table() -> str:
    """Returns a table of the evaluators as functions of `dept_vl.evaluators`, which no source text defines there."""
    lines = [
        "## Evaluators as functions",
        "",
        "`from dept_vl.evaluators import cider`, then `cider(predictions, references)`: scores by name.",
        "",
        "| function | scores, unrounded | printed |",
        "| --- | --- | --- |",
    ]
    for name, evaluator in EVALUATORS.items():
        function = name.replace("-", "_")
        scores = ", ".join(f"`{key}`" for key in evaluator.scores)
        shown = "; ".join(dict.fromkeys(scale.text for scale in evaluator.scores.values()))
        lines.append(f"| [](){{#dept_vl.evaluators.{function}}}`{function}` | {scores} | {shown} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Returns the page of every setting: a table a group, made of the schema."""
    groups = {name: info.description for name, info in TrainConfig.__pydantic_fields__.items()}
    tables: dict[str, list[str]] = {}
    notes = recipe_notes()
    for key, setting in settings_of(TrainConfig):
        recipe = f" ({notes[key]})" if key in notes else ""
        only = f" Only of {', '.join(f'`{name}`' for name in setting.only)}." if setting.only else ""
        kind, default, text = (
            html.escape(words, quote=False).replace("|", "\\|")
            for words in (setting.kind.replace(",", ", "), setting.default or "empty", f"{setting.text}{recipe}.{only}")
        )
        row = f"| `{key}` | {kind} | {default} | {text} |"
        tables.setdefault(key.split(".")[0] if "." in key else "", []).append(row)
    lines = [
        "# Settings",
        "Every setting of a run, as `dept-vl train --help` lists them: given as `--dotted.key value`, in a YAML file, "
        "or nested in what Python is given. `null` is no value.",
    ]
    for group, rows in tables.items():
        lines.append(f"## {group}\n\n{groups[group]}" if group else "## The run")
        lines.append("\n".join(["| setting | type | default | meaning |", "| --- | --- | --- | --- |", *rows]))
    return "\n\n".join(lines) + "\n"
