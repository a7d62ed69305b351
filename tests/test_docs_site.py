"""The documentation site: built as `make docs` does, without network and without torch, and what it must hold."""

import contextlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import griffe
import pytest
from markdown_it import MarkdownIt

from dept_vl.settings.help import settings_of
from dept_vl.settings.schema import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [module for page in runpy.run_path(str(ROOT / ".ci" / "docs_site.py"))["PUBLIC"].values() for module in page]
PAGES = {ROOT / "README.md": "index", ROOT / "CONTRIBUTING.md": "contributing", ROOT / "CHANGELOG.md": "changelog"} | {
    path: str(path.relative_to(ROOT / "docs").with_suffix("")).replace("README", "index")
    for path in sorted((ROOT / "docs").rglob("*.md"))
}
"""File of the checkout -> page of the site."""
BUILD = """
import socket, sys
def refuse(*_): sys.exit("a socket was asked for")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from mkdocs.__main__ import cli
cli(["build", "--site-dir", *sys.argv[1:]], standalone_mode=False)
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""


def build(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, "-c", BUILD, str(folder), *words], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def article(site: Path, page: str) -> str:
    """Returns what a page says, without its frame."""
    return re.search(r"<article.*?</article>", (site / f"{page}.html").read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.mark.whole
def test_every_list_table_and_block_of_a_file_is_on_its_page(site):
    """As GitHub shows them: the site's Markdown wants more spaces in lists, which the hook adds."""
    for path, page in PAGES.items():
        on_github = MarkdownIt("commonmark").enable("table").render(path.read_text(encoding="utf-8"))
        shown, wanted = (
            Counter(re.findall(r"<(ol|ul|li|table|td|pre|p|h2|h3|h4)[ >]", text))
            for text in (article(site, page), on_github)
        )
        assert shown == wanted, path.name


@pytest.mark.whole
def test_a_notebook_is_a_page_with_its_outputs(site):
    cells = json.loads((ROOT / "examples" / "own_photos.ipynb").read_text(encoding="utf-8"))["cells"]
    blocks = sum(1 + len(cell["outputs"]) for cell in cells if cell["cell_type"] == "code")
    text = article(site, "own-photos")
    assert len(re.findall(r"<pre[ >]|<img[ >]", text)) == blocks
    assert 'src="data:image/png;base64,' in text


@pytest.mark.whole
def test_every_setting_is_in_the_table(site):
    text = article(site, "settings")
    rows = re.findall(r"<tr>\s*<td><code>([\w.]+)</code></td>", text)
    assert rows == [key for key, _ in settings_of(TrainConfig)]
    assert "runs/&lt;task&gt;-&lt;tuner&gt;" in text


@pytest.mark.whole
def test_public_names_are_on_their_pages_and_names_lead_to_them(site):
    assert 'id="dept_vl.runs.callbacks.Callback.on_step"' in article(site, "api/callbacks")
    assert 'id="dept_vl.errors.ConfigError"' in article(site, "api/dept_vl")
    assert 'id="dept_vl.load"' in article(site, "api/dept_vl")
    assert 'id="dept_vl.evaluators.cider"' in article(site, "api/evaluators")
    assert 'href="api/callbacks.html#dept_vl.runs.callbacks.Callback"' in article(site, "contributing")


@pytest.mark.whole
def test_other_files_of_the_checkout_are_there_where_a_page_links_to_them(site):
    assert 'href="checkout/LICENSE"' in article(site, "index")
    assert (site / "checkout" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.whole
def test_no_page_asks_another_server_for_anything(site):
    asked = re.compile(r"""<(?:script|img|iframe|source)[^>]*\ssrc="https?:|<link[^>]*\shref="https?:""")
    assert [str(page) for page in site.rglob("*.html") if asked.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.whole
def test_a_link_or_a_name_that_leads_nowhere_ends_the_build(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "glossary.md").write_text("[a](gone.md), [b](#nowhere), `dept_vl.errors.NoSuchError`")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    settings = settings.replace("[.ci/", f"[{ROOT}/.ci/").replace("paths: [.]", f"paths: ['{ROOT}']")
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    assert done.stderr.count("WARNING") == 3
    for problem in ("'gone.md'", "'#nowhere'", "'dept_vl.errors.NoSuchError'"):
        assert problem in done.stderr


@pytest.fixture(scope="module")
def modules() -> griffe.ModulesCollection:
    """Both packages as the site reads them."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser="google")
    for package in ("dept_vl", "data_prep"):
        loader.load(package)
    loader.resolve_aliases()
    return loader.modules_collection


def own_members(of: griffe.Object) -> Iterator[griffe.Object]:
    """Yields everything defined below a module or class."""
    for member in of.members.values():
        if not member.is_alias:
            yield member
            yield from own_members(member)


def is_there(modules: griffe.ModulesCollection, name: str) -> bool:
    try:
        return modules[name] is not None
    except KeyError:
        with contextlib.suppress(
            AttributeError, ImportError
        ):  # made when it is asked for, as evaluators' functions are
            return resolve_name(name) is not None
        return False


def test_names_in_docstrings_are_there(modules):
    written = [
        (member.path, name)
        for package in ("dept_vl", "data_prep")
        for member in own_members(modules[package])
        for name in re.findall(
            r"`((?:dept_vl|data_prep)(?:\.\w+)+)`", member.docstring.value if member.docstring else ""
        )
    ]
    assert len(written) > 10
    assert [(where, name) for where, name in written if not is_there(modules, name)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_docstrings(modules, module):
    names = modules[module].exports or [name for name, member in modules[module].members.items() if member.is_public]
    assert names
    members = {name: modules[module][str(name)] for name in names if name != "__version__"}
    methods = {
        f"{name}.{inner.name}": inner
        for name, member in members.items()
        if member.is_class
        for inner in member.members.values()
        if inner.is_function and not inner.name.startswith("_")
    }
    assert [name for name, member in {**members, **methods}.items() if not member.has_docstring] == []
