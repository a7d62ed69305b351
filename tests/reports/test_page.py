"""The page of a scored run: what it says, that nothing in it is run or fetched, how large it is, what is refused."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest

from dept_vl.cli import main
from dept_vl.reports.page import write
from dept_vl.reports.page.statistics import calibrate
from dept_vl.system import extras
from tests.browser import Browser
from tests.reports.made_runs import METRICS, label_run, noisy_images, prepared_vqa, run_of_two, vqa_run

ANSWERS = ["red", "red", "blue", "rot", "red", "blue", "red", "red", "red"]


class Parsed(HTMLParser):
    """A page's elements as a browser would make them, and its text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.script, self.texts = Counter(), [], "", []
        self._in = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attributes]
        self._in.append(tag)

    def handle_endtag(self, tag):
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if self._in and self._in[-1] == "script":
            self.script += data
        elif not self._in or self._in[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def data(tmp_path):
    return prepared_vqa(tmp_path / "data", len(ANSWERS), noisy_images(tmp_path / "data" / "images", 3))


@pytest.fixture
def run(tmp_path, data):
    return vqa_run(tmp_path / "run", data, ANSWERS)


def made(tmp_path, *runs, options=()):
    """Returns the page that the command writes."""
    out = tmp_path / "out.html"
    assert main(["report", *map(str, runs), "--html", str(out), *options]) == 0
    return out.read_text(encoding="utf-8")


def test_a_page_says_what_a_run_is_how_it_learned_and_what_it_answers(tmp_path, run):
    text = made(tmp_path, run)
    page = Parsed(text)
    assert "vqa: dept" in page.text
    assert re.search(r"70\.0 vqa_accuracy, of 100; 95 % interval [\d.]+ to [\d.]+", page.text)
    assert "9 rows of test" in page.text
    assert "Not the data set's complete split." in page.text
    assert "dept-vl train --task vqa" in page.text
    assert f"dept-vl eval --verify {run / 'results-test.json'}" in page.text
    assert "trained 1,000 1.00 % of all" in page.text
    for title in ("loss", "validation score", "learning rates", "size beside the frozen embeddings"):
        assert title in page.text
    assert page.tags["svg"] == 4
    assert "the prompt is 2 times, what is added to the text is 0.005 times as large" in page.text
    assert "0.5 % of them at the end: it does next to nothing" in page.text
    assert re.search(r"yes/no 3 \d\d\.\d \[", page.text)
    assert "right 6" in page.text
    assert "wrong 3" in page.text
    assert "what is it? 2" in page.text
    assert "✗ blue" in page.text
    assert "red ×9; rot" in page.text
    assert "there is no calibration" in page.text
    assert "width, pixels 3 64 64 64 64" in page.text
    assert "tuner.num_virtual_tokens" in page.text
    assert "torch 2.14.1 2.14.1" in page.text
    assert page.tags["article"] == 9


def test_the_worst_come_first_without_a_script(tmp_path, run):
    orders = [float(value) for _, name, value in Parsed(made(tmp_path, run)).attributes if name == "data-order"]
    assert orders == sorted(orders)


def test_an_image_of_several_rows_is_in_the_page_once(tmp_path, run):
    text = made(tmp_path, run)
    assert text.count("data:image/webp") == 3
    assert text.count('role="img"') == 9


def test_what_data_say_is_text_and_nothing_else(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}</style>"
    names = noisy_images(tmp_path / "data" / "images", 1)
    name = "\"'><script>alert(3)<.jpg"
    (tmp_path / "data" / "images" / names[0]).rename(tmp_path / "data" / "images" / name)
    data = prepared_vqa(tmp_path / "data", 3, [name], question=evil)
    metrics = [{"step": 1, "loss": 1.0, f"lr/{evil}$x": 0.1}, {"step": 2, f"val/{evil.replace('/', '')}": 3.0}]
    run = vqa_run(tmp_path / "run", data, ["red", evil, "blue"], metrics=metrics, command=f"dept-vl {evil}")
    other = vqa_run(tmp_path / "run2 <script>", data, ["red", "x", "<b>bold</b>"])
    plain = Parsed(made(tmp_path, other))
    for text in (made(tmp_path, run), made(tmp_path, run, other)):
        page = Parsed(text)
        assert (page.tags["script"], page.tags["img"], page.tags["b"]) == (1, 0, page.tags["article"])
        assert page.script == (write._ASSETS / "page.js").read_text(encoding="utf-8") == plain.script
        assert evil in " ".join(page.texts)
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert ("div", "aria-label", name) in page.attributes
        assert "49" not in re.findall(r"\b49\b", text)


def links(text):
    """Returns everything in a page that could be fetched."""
    page = Parsed(text)
    named = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    return named + re.findall(r"url\(\s*['\"]?([^)'\"]*)", text) + re.findall(r"@import[^;]*", text)


def test_nothing_is_fetched_and_only_its_own_script_may_run(tmp_path, run):
    text = made(tmp_path, run)
    assert {link.partition(",")[0] for link in links(text) if link[0] != "#"} == {"data:image/webp;base64"}
    digest = base64.b64encode(hashlib.sha256(Parsed(text).script.encode()).digest()).decode()
    (policy,) = [
        value for tag, name, value in Parsed(text).attributes if (tag, name) == ("meta", "content") and "src" in value
    ]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}';" in policy


def test_a_page_of_2000_examples_with_an_image_each_has_at_most_5_mb(tmp_path, capsys):
    names = noisy_images(tmp_path / "data" / "images", 2000, size=(96, 72))
    data = prepared_vqa(tmp_path / "data", 2000, names, question="which of all these words are long enough here?")
    text = made(tmp_path, vqa_run(tmp_path / "run", data, ["red", "blue"] * 1000))
    assert len(text.encode()) <= 5_000_000
    assert text.count("<article") == 2000
    assert text.count("data:image/webp") == 2000
    assert "2,000 examples" in capsys.readouterr().out


def test_a_page_shows_fewer_rows_where_they_do_not_fit_and_says_so(tmp_path, run, monkeypatch):
    monkeypatch.setattr(write, "_CARDS", (4, 2))
    assert "9 rows; 4 of them are shown, drawn at random" in Parsed(made(tmp_path, run)).text
    monkeypatch.setattr(write, "MAX_BYTES", 1000)
    page = Parsed(made(tmp_path, run))
    assert "2 of them are shown" in page.text
    assert "no room for images" in page.text


def test_of_several_runs_the_rows_to_which_they_gave_different_answers_are_shown(tmp_path, run, data):
    other = vqa_run(tmp_path / "other", data, ["red", "green", *ANSWERS[2:8], "rot"], tuner="prompt-tuning")
    page = Parsed(made(tmp_path, run, other))
    assert page.tags["article"] == 2
    assert "2 rows to which the runs gave different answers" in page.text
    assert "✓ run: red" in page.text
    assert "✗ other: green" in page.text
    assert "what is it? 1" in page.text
    assert "what is it? 2" not in page.text
    assert "prompt-tuning" in page.text
    assert "p is two-sided" in page.text
    assert [value for _, name, value in page.attributes if name == "data-order"] == ["-100.0", "-70.0"]


def test_labels_have_confusions_and_confidences_a_calibration(tmp_path):
    run = label_run(tmp_path / "run", ["1", "1", "0", "x"], ["1", "0", "0", "1"], [0.95, 0.85, 0.65, 0.35])
    page = Parsed(made(tmp_path, run))
    assert "0 1 (no label) 0 1 1 0 1 0 1 1" in page.text
    assert "p = 0.95" in page.text
    assert "Expected calibration error: 0.400" in page.text
    assert "by label" in page.text
    assert "✓: the label is that of the data" in page.text
    assert "the scores by type are lost: gone/cola.fixed/test.parquet" in page.text
    assert "Nothing is recorded of the training" in page.text
    assert page.tags["svg"] == 1


def test_a_run_of_several_tasks_has_all_of_it_for_each(tmp_path):
    page = Parsed(made(tmp_path, run_of_two(tmp_path / "run")))
    assert (page.tags["h1"], page.tags["article"]) == (2, 8)
    assert "cola: dept" in page.text
    assert "rte: dept" in page.text
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_calibration_is_the_mean_distance_of_confidence_and_share_right():
    found = calibrate([0.95, 0.91, 0.55, 1.0], [True, False, True, True])
    assert [count for count, _, _ in found.bins] == [1, 3]
    expected = 1 / 4 * abs(0.55 - 1) + 3 / 4 * abs((0.95 + 0.91 + 1.0) / 3 - 2 / 3)
    assert found.error == pytest.approx(expected)


def test_images_that_have_moved_are_placeholders_and_their_folder_can_be_named(tmp_path, run, data, caplog):
    (data / "images").rename(tmp_path / "elsewhere")
    page = Parsed(made(tmp_path, run))
    assert page.text.count("image not found:") == 9
    assert "3 of 3 images shown were not found or could not be read" in page.text
    assert "name their folder with --images" in caplog.text
    assert made(tmp_path, run, options=["--images", str(tmp_path / "elsewhere")]).count("data:image/webp") == 3


def test_an_image_outside_the_folder_is_not_opened(tmp_path, run, data):
    (data / "secret.jpg").write_bytes((data / "images" / "000000.jpg").read_bytes())
    lines = (run / "answers-test.jsonl").read_text().replace("000000.jpg", "../secret.jpg")
    (run / "answers-test.jsonl").write_text(lines)
    text = made(tmp_path, run)
    assert text.count("data:image/webp") == 2
    assert "leads out of the folder of the images" in text


def test_rows_that_were_prepared_anew_give_no_scores_by_type(tmp_path, run, data):
    prepared_vqa(data, 4, ["000000.jpg"])
    page = Parsed(made(tmp_path, run))
    assert "holds other rows now than those that were scored" in page.text
    assert "by answer type" not in page.text


def _unscored(run):
    (run / "results-test.json").unlink()


def _unanswered(run):
    (run / "answers-test.jsonl").unlink()


def _of_others(run):
    (run / "predictions-test.json").write_text("[]")


@pytest.mark.parametrize(
    ("words", "spoil", "message"),
    [
        ("--html x.html", None, "--html: name the folder of a run that `dept-vl eval` has scored"),
        ("run --html x.html", _unscored, "holds no test scores; make them with `dept-vl eval --checkpoint"),
        ("run --html x.html", _unanswered, "answers-test.jsonl: cannot be read: No such file"),
        ("run --html x.html", _of_others, "not the answers that results-test.json is of; score the run again"),
        ("absent --html x.html", None, "absent: no such folder"),
        ("run run --html x.html", None, "given twice; a run counts once"),
        ("run --html x.txt", None, "--html x.txt: a page is written as .html"),
        ("run --html no/x.html", None, "--html no/x.html: there is no folder no/"),
        ("run --html x.html --out y", None, "--out: is for tables and figures, and has no effect with --html"),
        ("run --html x.html --format csv", None, "--format: is for tables and figures"),
        ("run --html x.html --images absent", None, "--images absent: no such folder"),
        ("run --paper table3 --images data", None, "--images: is for a page, and has no effect without --html"),
    ],
)
def test_a_page_that_cannot_be_made_is_refused(tmp_path, run, monkeypatch, capsys, words, spoil, message):
    monkeypatch.chdir(tmp_path)
    if spoil:
        spoil(run)
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("other", ["--paper table1", "--figure 6"])
def test_a_page_and_a_table_are_not_asked_for_together(run, capsys, other):
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(run), "--html", "x.html", *other.split()])
    assert stopped.value.code == 2
    assert "not allowed with argument --html" in capsys.readouterr().err


def test_a_missing_extra_is_named(tmp_path, run, monkeypatch, capsys):
    monkeypatch.setitem(extras.EXTRAS, "report", ("jinja2-absent",))
    assert main(["report", str(run), "--html", str(tmp_path / "x.html")]) == 2
    assert "pip install 'dept-vl[report]'" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_a_page_needs_no_torch(tmp_path, run):
    script = "import sys\nfrom dept_vl.cli import main\nsys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    words = [sys.executable, "-c", script, "report", str(run), "--html", str(tmp_path / "x.html")]
    subprocess.run(words, check=True)


@pytest.fixture
def browser(tmp_path):
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


SHOWN = "[...document.querySelectorAll('.card')].filter((c) => c.offsetParent).map((c) => Number(c.dataset.row))"


def test_a_browser_shows_sorts_and_filters_it_in_light_dark_and_on_a_phone(tmp_path, run, data, browser):
    two = vqa_run(tmp_path / "two", data, ["red", *ANSWERS[1:8], "rot"], tuner="prompt-tuning")
    made(tmp_path, run)
    url = (tmp_path / "out.html").as_uri()
    browser.open(url)
    assert (browser.requested(), browser.complaints()) == ([], [])
    assert browser.value(SHOWN) == [2, 5, 3, 0, 1, 4, 6, 7, 8]
    assert browser.value("document.querySelector('.pic').offsetHeight") > 100
    light = browser.value("getComputedStyle(document.body).backgroundColor")
    line = "getComputedStyle(document.querySelector('figure svg path[style*=line-0]')).stroke"
    colour = browser.value(line)
    browser.value("document.querySelector('.only-right').click()")
    assert browser.value(SHOWN) == [0, 1, 4, 6, 7, 8]
    browser.open(f"{url}#sort=best", width=390, scheme="dark")
    assert browser.value(SHOWN)[-3:] == [3, 2, 5]
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.value("document.querySelector('.card').offsetWidth") > 150
    assert browser.value("getComputedStyle(document.body).backgroundColor") != light
    assert browser.value(line) != colour
    browser.open(url, with_scripts=False)
    assert browser.value("document.querySelector('.sort').offsetParent === null")
    assert browser.value(SHOWN) == [2, 5, 3, 0, 1, 4, 6, 7, 8]
    made(tmp_path, run, two)
    browser.open(url, width=390)
    assert (browser.requested(), browser.complaints()) == ([], [])
    assert browser.value(SHOWN) == [8]
    assert browser.value("document.documentElement.scrollWidth") <= 390


def test_in_a_browser_no_data_run(tmp_path, browser):
    evil = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
    data = prepared_vqa(tmp_path / "data", 3, noisy_images(tmp_path / "data" / "images", 1), question=evil)
    metrics = [json.loads(json.dumps(line).replace("lr/lowrank", f"lr/{evil}")) for line in METRICS]
    made(tmp_path, vqa_run(tmp_path / "run", data, ["red", evil, "blue"], metrics=metrics, command=evil))
    browser.open((tmp_path / "out.html").as_uri())
    assert browser.value("typeof window.hit") == "undefined"
    assert browser.value("document.scripts.length") == 1
    assert (browser.requested(), browser.complaints()) == ([], [])
