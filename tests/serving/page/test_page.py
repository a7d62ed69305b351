"""The page in a real browser: upload, ask, switch, compare, draw, errors; nobody else is asked, and no data run."""

import http.client
import json
from dataclasses import replace

import pytest

import dept_vl
from tests.browser import Browser
from tests.serving.conftest import call, png
from tests.serving.page.conftest import a_page
from tests.serving.test_server import bomb

pytest.importorskip("gradio", reason="the extra `ui` is not installed")

EVIL = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>${window.hit = 3}{{window.hit}}</td>"
FILE = "#image-0 input[type=file]"
QUESTION = "what color is the ball ?"
READY = "document.querySelector('#draw') && document.querySelector('#result .dv-hint')"
FIELD = f"document.querySelector({json.dumps(FILE)})"
PICTURE = "document.querySelector('#image-0 img')"


class Answering:
    """Lets answers be put in the place of the adapters' own."""

    def __init__(self):
        self.text = None

    def __call__(self, answer):
        def answered(rows):
            found = answer(rows)
            if self.text is None:
                return found
            return [
                replace(one, text=self.text, likeliest=(replace(one.likeliest[0], text=self.text),)) for one in found
            ]

        return answered


@pytest.fixture(scope="module")
def answering():
    return Answering()


@pytest.fixture(scope="module")
def shown(served_runs, rows_dir, answering, tmp_path_factory):
    """The page's service, its address and port."""
    words = [served_runs / name for name in ("one", "two", "lora", "captions", "rte")]
    with a_page(words, rows_dir, tmp_path_factory.mktemp("uploads"), wrap=answering) as (service, port):
        yield service, f"http://127.0.0.1:{port}/", port


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(chromium, shown):
    """The page, opened anew; at the end of each test it has asked nobody else, and nothing in it has run."""
    chromium.open(shown[1])
    chromium.wait(READY)
    yield chromium
    assert [url for url in chromium.requested() if not url.startswith((shown[1], f"blob:{shown[1]}"))] == []
    assert chromium.value("typeof window.hit") == "undefined"
    assert failures(chromium) == []


def failures(page):
    """Returns what a script of the page failed at, and what the browser itself refused."""
    thrown = [one for one in page.events if one.get("method") == "Runtime.exceptionThrown"]
    logged = [one["params"]["entry"] for one in page.events if one.get("method") == "Log.entryAdded"]
    return thrown + [one for one in logged if one["level"] == "error"]


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(png(5))
    return path


def text(page, place):
    return page.value(f"document.querySelector('#{place}').innerText")


def click(page, selector):
    page.value(f"document.querySelector({json.dumps(selector)}).click()")


def choose(page, group, name):
    page.value(
        f"[...document.querySelectorAll('#{group} label')].find((one) => one.innerText.trim() === {json.dumps(name)})"
        ".querySelector('input').click()"
    )


def upload(page, path):
    page.upload(FILE, path)
    page.wait(PICTURE)


def ask(page, question=QUESTION):
    page.type("#text-0 textarea", question)
    click(page, "#ask")


def says(page, words):
    page.wait(f"document.querySelector('#result').innerText.includes({json.dumps(words)})")


def test_upload_ask_switch_and_compare(page, image, served_runs):
    own = {name: dept_vl.load(served_runs / name).answer(image, QUESTION) for name in ("one", "two", "lora")}
    upload(page, image)
    ask(page)
    page.wait("document.querySelectorAll('#result .dv-card').length === 1")
    assert page.value("document.querySelector('.dv-answer').textContent").strip(" …\n") == own["one"]
    assert page.value("document.querySelector('.dv-likely .dv-own td').textContent").strip(" …\n") == own["one"]
    assert "Found by 5 beams: a likelier one may be missing" in text(page, "result")
    choose(page, "adapter", "two")
    page.wait("document.querySelector('.dv-card h3').textContent.startsWith('two')")
    assert page.value("document.querySelector('.dv-answer').textContent").strip(" …\n") == own["two"]
    choose(page, "others", "lora")
    page.wait("document.querySelectorAll('#result .dv-card').length === 2")
    assert ("They differ" in text(page, "result")) == (own["two"] != own["lora"])
    cells = page.value("[...document.querySelectorAll('.dv-asked tbody tr')].map((row) => row.innerText)")
    assert len(cells) == 1
    assert all(answer in cells[0] for answer in own.values())
    is_marked = page.value("document.querySelector('.dv-asked tbody tr').classList.contains('dv-differ')")
    assert is_marked == (len(set(own.values())) > 1)


def test_caption_and_labels(page, image, served_runs):
    choose(page, "adapter", "captions")
    page.wait("document.querySelector('#ask').innerText === 'Caption' && !document.querySelector('#text-0 textarea')")
    upload(page, image)
    click(page, "#ask")
    page.wait("document.querySelector('.dv-answer')")
    found = page.value("document.querySelector('.dv-answer').textContent").strip(" …\n")
    assert found == dept_vl.load(served_runs / "captions").caption(image)
    choose(page, "adapter", "rte")
    page.wait("document.querySelector('#text-2 textarea')")
    says(page, "Type a sentence1.")
    page.type("#text-1 textarea", "the ball is red")
    page.type("#text-2 textarea", "red ball")
    click(page, "#ask")
    says(page, "The likeliest of 2 labels; the shares of all of them sum to 100 %")


def test_rows_are_drawn_and_asked(page, shown):
    click(page, "#draw")
    page.wait("document.querySelector('#drawn').innerText.includes('of vqa test')")
    page.wait(PICTURE)
    assert "people: red ×9; rot" in text(page, "drawn")
    assert page.value("document.querySelector('#text-0 textarea').value").startswith("what is it?")
    click(page, "#ask")
    says(page, "people: red ×9; rot")
    choose(page, "others", "two")
    click(page, "#draw-many")
    says(page, "one, two differ on")
    rows = page.value("document.querySelectorAll('.dv-asked tbody tr').length")
    assert rows == 9
    assert page.value("document.querySelectorAll('.dv-asked img').length") == 9


def test_where_there_are_no_rows_the_button_is_off_and_says_why(page):
    choose(page, "adapter", "rte")
    page.wait("document.querySelector('#draw').disabled && document.querySelector('#draw-many').disabled")
    assert "No rows to draw for rte:" in text(page, "drawn")
    assert "no prepared splits there" in text(page, "drawn")


def test_what_is_missing_or_cannot_be_read_is_said(page, image, tmp_path):
    click(page, "#ask")
    page.wait("document.querySelector('#result .dv-error')")
    assert text(page, "result") == "Choose an image."
    (tmp_path / "bomb.png").write_bytes(bomb())
    page.upload(FILE, tmp_path / "bomb.png")
    page.wait(PICTURE)
    ask(page)
    says(page, "1600000000 pixels")
    click(page, "#image-0 button[aria-label='Remove Image']")
    page.wait(FIELD)
    (tmp_path / "text.png").write_text("no picture")
    page.upload(FILE, tmp_path / "text.png")
    page.wait(PICTURE)
    ask(page)
    says(page, "not an image; expected one of JPEG, PNG, WEBP")
    ask(page, "a" * 10_001)
    says(page, "question: a text of 10,001 characters; at most 10,000 are read")
    assert failures(page) == []


def test_what_people_and_models_write_is_text(page, answering, tmp_path):
    path = tmp_path / "<img src=x onerror=window.hit=4>.png"
    path.write_bytes(png(6))
    upload(page, path)
    answering.text = EVIL
    try:
        ask(page, EVIL)
        page.wait("document.querySelector('.dv-answer')")
    finally:
        answering.text = None
    assert page.value("document.querySelector('.dv-answer').textContent").strip(" …\n") == EVIL
    assert page.value("document.querySelector('.dv-likely .dv-own td').textContent").strip(" …\n") == EVIL
    assert page.value("document.querySelector('.dv-asked .dv-what span').textContent") == EVIL
    assert page.value("document.querySelectorAll('#result script, #table script, #result img').length") == 0


def test_it_fits_a_phone_and_follows_the_dark(chromium, shown, image):
    colours = []
    for scheme, width in (("light", 1200), ("dark", 390)):
        chromium.open(shown[1], width=width, scheme=scheme)
        chromium.wait(READY)
        upload(chromium, image)
        ask(chromium)
        chromium.wait("document.querySelector('.dv-answer')")
        assert chromium.value("document.documentElement.scrollWidth") <= width
        colours.append(chromium.value("getComputedStyle(document.querySelector('.dv-answer')).color"))
        fonts = chromium.value("getComputedStyle(document.querySelector('.dv-answer')).fontFamily")
        assert fonts.startswith("system-ui")
        assert chromium.value("[...document.fonts].filter((one) => one.status !== 'unloaded').length") == 0
    assert colours[0] != colours[1]


def finished(port, number, name, *fields):
    """Returns what becomes of asking without the page, as a program would."""
    body = {"data": [None, name, [], *fields], "fn_index": 0, "session_hash": str(number)}
    assert call(port, "POST", "/gradio_api/queue/join", body)[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/gradio_api/queue/data?session_hash={number}")
    line = ""
    with connection.getresponse() as response:
        while '"process_completed"' not in line:
            line = response.readline().decode()
    connection.close()
    return json.loads(line.removeprefix("data: "))


def file_data(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def test_addresses_and_paths_of_files_are_refused(shown, tmp_path):
    for path in ("http://127.0.0.1:9/a.png", "HTTPS://example.invalid/a.png"):
        body = {"data": [None, "one", [], file_data(path), QUESTION, "", ""], "fn_index": 0, "session_hash": "a"}
        found, _, said = call(shown[2], "POST", "/gradio_api/queue/join", body)
        assert (found, said) == (400, "a file is uploaded; addresses are not fetched")
    (tmp_path / "secret.png").write_bytes(png())
    done = finished(shown[2], 1, "one", file_data(tmp_path / "secret.png"), QUESTION, "", "")
    assert not done["success"]
    assert "Cannot move" in done["output"]["error"]


def test_ten_million_characters_and_an_adapter_that_is_not_there(shown, tmp_path):
    (path,) = _uploaded(shown[2], png())
    _, result, _ = finished(shown[2], 2, "one", file_data(path), "a" * 10_000_000, "", "")["output"]["data"]
    assert "question: a text of 10,000,000 characters; at most 10,000 are read" in result
    _, result, _ = finished(shown[2], 3, "<b>x", file_data(path), QUESTION, "", "")["output"]["data"]
    assert "there is no adapter called &#39;&lt;b&gt;x&#39;" in result


def _uploaded(port, content):
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=b"}
    return call(port, "POST", "/gradio_api/upload", head + content + b"\r\n--b--\r\n", kind)[2]


def test_long_bodies_are_refused_and_answers_carry_a_policy(shown):
    status, _, said = call(shown[2], "POST", "/gradio_api/queue/join", b"x" * (20 * 1024 * 1024 + 1))
    assert (status, "20,971,520 bytes at most" in said) == (413, True)
    _, headers, _ = call(shown[2], "GET", "/")
    assert headers["content-security-policy"].startswith("default-src 'self' 'unsafe-inline'")
    assert call(shown[2], "GET", "/gradio_api/file=/etc/passwd")[0] in (403, 404)
