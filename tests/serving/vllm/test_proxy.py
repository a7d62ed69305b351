"""``dept-vl proxy``: an OpenAI chat in, a chat of vLLM's with embeddings out, and what is refused on the way."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import dept_vl
from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.vllm.adapters import ProxiedAdapter
from dept_vl.serving.vllm.startup import check_upstream, read_exports
from dept_vl.system import extras
from tests.models.language.causal_folders import save_tiny_llama
from tests.models.vision_language_folders import save_tiny_vlm
from tests.serving.conftest import ask, call, chat, numbers, png, until
from tests.serving.test_server import bomb, refused, request_head
from tests.serving.vllm.conftest import DEPT, exported, loaded, save_run, save_vlm_run
from tests.serving.vllm.engine import Engine, EngineServer

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

QUESTIONS = ("what color is the ball?", "how many cubes are red?", "two")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on one LLaVA, one of pairs of images, and their exports."""
    folder = tmp_path_factory.mktemp("proxied")
    model = save_tiny_vlm("llava", folder / "llava")
    for number, (name, task) in enumerate({"one": "vqa", "two": "vqa", "pairs": "nlvr2"}.items()):
        exported(save_vlm_run(folder / name, task, model, seed=number), folder / f"{name}-export")
    return folder


@pytest.fixture(scope="module")
def engine(runs):
    model, codec = loaded(runs / "one")
    return Engine(model.backbone, codec.tokenizer)


@contextmanager
def proxying(words, upstream, *, timeout_s=20, **limits):
    """Serves exports in a thread for the block; yields the server and its port."""
    from dept_vl.serving.server import DrainingServer, bind
    from dept_vl.serving.vllm.app import Proxy, make_proxy_app
    from dept_vl.serving.vllm.upstream import Upstream

    adapters = [ProxiedAdapter.open(export) for export in read_exports(list(map(str, words)), None)]
    proxy = Proxy(adapters, Upstream(check_upstream(upstream), model=None, timeout_s=timeout_s), ServeLimits(**limits))
    listening = bind("127.0.0.1", 0)
    server = DrainingServer(proxy.queue, make_proxy_app(proxy))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server, listening.getsockname()[1]
    finally:
        server.drain()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(runs, engine):
    words = [f"{name}={runs / f'{name}-export'}" for name in ("one", "two", "pairs")]
    with EngineServer(engine) as server:
        limits = {"max_body_mib": 16, "max_pixels": 1_000_000, "max_text": 2_000}
        with proxying(words, f"{server.address}/v1/", **limits) as (_, port):
            yield port


def text_of(answer):
    status, _, body = answer
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def test_answers_are_those_of_each_run_in_python(port, runs):
    with ThreadPoolExecutor(4) as pool:
        asked = [(name, question) for name in ("one", "two") for question in QUESTIONS]
        answers = [text_of(one) for one in pool.map(lambda one: ask(port, *one, png()), asked)]
    models = {name: dept_vl.load(runs / name) for name in ("one", "two")}
    assert answers == [models[name].answer(png(), question) for name, question in asked]
    assert answers[:3] != answers[3:]


def test_several_images_a_request(port, engine):
    engine.bodies.clear()
    body = chat("pairs", "two red cubes", png(1))
    body["messages"][0]["content"] += chat("pairs", None, png(2))["messages"][0]["content"]
    text_of(call(port, "POST", "/v1/chat/completions", body))
    kinds = [part["type"] for part in engine.bodies[0]["messages"][0]["content"]]
    assert kinds == ["prompt_embeds", "image_url", "image_url", "prompt_embeds"]


def test_a_decoder_of_text_alone(text_run, tmp_path):
    model, codec = loaded(text_run)
    out = exported(text_run, tmp_path / "sst2")
    with EngineServer(Engine(model.backbone, codec.tokenizer)) as server, proxying([out], server.address) as (_, port):
        texts = ["the small red ball", "how many ?"]
        answers = [text_of(ask(port, "sst2", text)) for text in texts]
        assert answers == [dept_vl.load(text_run).answer(sentence=text) for text in texts]
        assert [len(body["messages"][0]["content"]) for body in server.engine.bodies] == [1, 1]
        refused(ask(port, "sst2", texts[0], png()), 400, code="wrong_images", match="takes no image")


def test_what_the_engine_is_asked(port, engine):
    engine.bodies.clear()
    engine.headers.clear()
    headers = {"authorization": "Bearer secret"}
    turned = Image.fromarray(np.arange(60 * 30 * 3, dtype=np.uint8).reshape(60, 30, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    body = chat("one", QUESTIONS[0], file.getvalue(), max_tokens=2, temperature=0, seed=1)
    status, _, answer = call(port, "POST", "/v1/chat/completions", body, headers)
    assert status == 200
    (sent,) = engine.bodies
    kinds = [part["type"] for part in sent["messages"][0]["content"]]
    assert kinds == ["prompt_embeds", "image_url", "prompt_embeds"]
    assert {key: value for key, value in sent.items() if key not in ("messages", "chat_template")} == {
        "model": "the-engines-name", "max_tokens": 2, "stop_token_ids": [engine.tokenizer.eos_token_id],
        "temperature": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
    }  # fmt: skip
    assert engine.headers[-1]["authorization"] == "Bearer secret"
    data = sent["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(seen, np.rot90(np.asarray(turned), -1))
    assert answer["usage"]["completion_tokens"] <= 2
    assert answer["model"] == "one"


def test_a_key_that_is_not_ascii_goes_on_as_it_is(port, engine):
    engine.headers.clear()
    headers = {"authorization": "Bearer \xe9"}
    text_of(call(port, "POST", "/v1/chat/completions", chat("one", QUESTIONS[0], png()), headers))
    assert engine.headers[-1]["authorization"] == "Bearer \xe9"


def test_the_official_client_and_a_stream(port):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == ["one", "two", "pairs"]
    messages = chat("one", QUESTIONS[0], png())["messages"]
    whole = client.chat.completions.create(model="one", messages=messages)
    pieces = client.chat.completions.create(model="one", messages=messages, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert call(port, "GET", "/v1/models/two")[2]["method"] == "dept"
    assert call(port, "GET", "/health")[2] == {"status": "ok"}
    assert numbers(port)["dept_vl_adapters"] == 3


def test_bad_input_is_refused_before_the_engine_is_asked(port, engine):
    before = len(engine.bodies)
    text = QUESTIONS[0]
    refused(ask(port, "one", "a" * 10_000_000, png()), 400, code="text_too_long", match="10,000,000 characters")
    refused(ask(port, "one", "a" * 20_000_000, png()), 413, code="body_too_large", match="16,777,216 bytes")
    refused(ask(port, "one", "red " * 60, png()), 400, code="text_too_long", match="the adapter reads 24; shorten it")
    refused(ask(port, "one", text, bomb()), 400, code="invalid_image", match="1600000000 pixels")
    refused(ask(port, "one", text, png(size=(1100, 1100))), 400, code="invalid_image", match="at most 1,000,000")
    refused(ask(port, "one", text, "data:image/png;base64,!!!"), 400, code="invalid_image", match="not base64")
    refused(ask(port, "one", text, "http://169.254.169.254/latest/"), 400, code="image_url_refused")
    refused(ask(port, "one", text), 400, code="wrong_images", match="0 images; model 'one' (task 'vqa') takes 1 image")
    refused(ask(port, "one", None, png()), 400, match="needs a question")
    refused(ask(port, "none", text, png()), 404, code="model_not_found", match="no adapter called 'none'")
    refused(ask(port, "one", text, png(), temperature=1), 400, match="temperature")
    refused(ask(port, "one", text, png(), chat_template="{{ 1 }}"), 400, match="chat_template")
    embeds = {"model": "one", "messages": [{"role": "user", "content": [{"type": "prompt_embeds", "data": "aa"}]}]}
    refused(call(port, "POST", "/v1/chat/completions", embeds), 400, match="prompt_embeds")
    refused(call(port, "POST", "/v1/chat/completions", b"{}", {"content-type": "text/plain"}), 415, match="text/plain")
    refused(call(port, "GET", "/v1/models/none"), 404, code="model_not_found")
    refused(call(port, "POST", "/v1/models", {"path": "a"}), 405)
    assert len(engine.bodies) == before


def odd(status, body):
    return lambda _: (status, body)


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        (odd(500, {"error": {"message": "x" * 5000}}), "answered 500: " + "x" * 300 + "$"),
        (odd(200, b"<html>"), "answered 200 with no JSON"),
        (odd(200, {"choices": []}), "answered in another form than OpenAI's"),
        (odd(200, [1]), "answered in another form than OpenAI's"),
        (odd(302, {"detail": "moved"}), "answered 302: .*moved"),
        (odd(200, b" " * (5 << 20)), "answered with more than 4 MiB"),
        (odd(200, b"[" * 100_000), "answered 200 with no JSON"),
        (odd(200, b'{"choices": [{"message": {"content": "\\ud800"}}]}'), "answered 200 with no JSON"),
    ],
)
def test_an_engine_that_fails_is_named(runs, engine, reply, match):
    with EngineServer(engine, reply) as server, proxying([runs / "one-export"], server.address) as (_, port):
        status, _, body = ask(port, "one-export", QUESTIONS[0], png())
        assert (status, body["error"]["code"], body["error"]["type"]) == (502, "engine_failed", "server_error")
        assert re.search(match, body["error"]["message"])
        assert server.address in body["error"]["message"]


def test_an_engine_that_trusts_no_templates_says_which_flag_is_missing(runs, engine):
    strict = Engine(engine.backbone, engine.tokenizer, trusts_templates=False)
    with EngineServer(strict) as server, proxying([runs / "one-export"], server.address) as (_, port):
        said = "--trust-request-chat-template is not set"
        refused(ask(port, "one-export", QUESTIONS[0], png()), 502, code="engine_failed", match=said)


def test_an_engine_that_is_not_there_or_too_slow(runs, engine):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with proxying([runs / "one-export"], address) as (_, port):
        refused(ask(port, "one-export", QUESTIONS[0], png()), 502, code="engine_failed", match="cannot be asked")

    def slow(_):
        time.sleep(1)
        return 200, {}

    with EngineServer(engine, slow) as server, proxying([runs / "one-export"], server.address, timeout_s=0.2) as made:
        refused(ask(made[1], "one-export", QUESTIONS[0], png()), 504, code="engine_timeout")


def test_an_engine_that_was_started_again_with_another_name_is_asked_for_it(runs, engine):
    def named(body):
        if body["model"] != server.name:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        return 200, engine.answer(body)

    with EngineServer(engine, named) as server, proxying([runs / "one-export"], server.address) as (_, port):
        answer = text_of(ask(port, "one-export", QUESTIONS[0], png()))
        server.name = "another"
        said = "`the-engines-name` does not exist"
        refused(ask(port, "one-export", QUESTIONS[0], png()), 502, code="engine_failed", match=said)
        assert text_of(ask(port, "one-export", QUESTIONS[0], png())) == answer


class Held:
    """Holds the engine's answers back until it is opened."""

    def __init__(self, engine):
        self.engine, self.is_open, self.begun = engine, threading.Event(), 0

    def __call__(self, body):
        self.begun += 1
        assert self.is_open.wait(30)
        return 200, self.engine.answer(body)


def test_too_many_requests_a_client_that_leaves_and_draining(runs, engine):
    held = Held(engine)
    with (
        EngineServer(engine, held) as server,
        ThreadPoolExecutor(2) as pool,
        proxying([runs / "one-export"], server.address, max_queue=2) as (proxy, port),
    ):
        first = pool.submit(ask, port, "one-export", QUESTIONS[0], png())
        until(lambda: held.begun == 1)
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            body = json.dumps(chat("one-export", QUESTIONS[1], png())).encode()
            leaving.sendall(request_head(len(body)).encode() + body)
            until(lambda: held.begun == 2)
            status, headers, refusal = ask(port, "one-export", QUESTIONS[2], png())
            assert (status, refusal["error"]["code"], headers["retry-after"]) == (429, "queue_full", "1")
        until(lambda: numbers(port).get('dept_vl_requests_total{status="499"}') == 1)
        draining = threading.Thread(target=proxy.drain)
        draining.start()
        until(lambda: call(port, "GET", "/health")[0] == 503)
        refused(ask(port, "one-export", QUESTIONS[0], png()), 503, code="shutting_down")
        held.is_open.set()
        assert text_of(first.result()) == dept_vl.load(runs / "one").answer(png(), QUESTIONS[0])
        draining.join()


def test_a_signal_in_mid_request_is_answered_and_the_exit_code_is_0(runs, engine):
    held = Held(engine)
    with EngineServer(engine, held) as server, ThreadPoolExecutor(1) as pool:
        words = [str(runs / "one-export"), "--upstream", server.address, "--port", "0"]
        proxy = subprocess.Popen(
            [sys.executable, "-m", "dept_vl", "proxy", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        try:
            found = re.match(r"answering as one-export at http://127.0.0.1:(\d+)/v1", proxy.stdout.readline())
            asked = pool.submit(ask, int(found[1]), "one-export", QUESTIONS[0], png())
            until(lambda: held.begun == 1)
            proxy.send_signal(signal.SIGTERM)
            until(lambda: call(int(found[1]), "GET", "/health")[0] == 503)
            held.is_open.set()
            assert asked.result()[0] == 200
            assert proxy.wait(20) == 0
            assert proxy.stdout.read() == "stopped: everything that waited is answered\n"
            assert proxy.stderr.read() == ""
        finally:
            proxy.kill()
            proxy.communicate()


def refusal(capsys, *words):
    capsys.readouterr()  # what wrote a run said something too
    assert main(["proxy", *map(str, words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


UPSTREAM = ("--upstream", "http://127.0.0.1:1")


def test_folders_that_are_no_exports(capsys, runs, tmp_path):
    assert f"{runs / 'one'}: no export here (export.json is missing)" in refusal(capsys, runs / "one", *UPSTREAM)
    assert "no export here" in refusal(capsys, runs / "absent", *UPSTREAM)
    copy = shutil.copytree(runs / "one-export", tmp_path / "copy")
    settings = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**settings, "format": 99}))
    assert "is of format 99, expected 1; export the run again" in refusal(capsys, copy, *UPSTREAM)
    del settings["frame"]
    (copy / "export.json").write_text(json.dumps(settings))
    assert "frame is missing; export the run again" in refusal(capsys, copy, *UPSTREAM)
    (copy / "export.json").write_text("{")
    assert "export the run again" in refusal(capsys, copy, *UPSTREAM)


def test_two_of_one_name_and_another_backbone(capsys, runs, tmp_path):
    both = [runs / "one-export", f"one-export={runs / 'two-export'}"]
    assert "two adapters are called 'one-export'" in refusal(capsys, *both, *UPSTREAM)
    run = save_run(tmp_path / "run", "sst2", save_tiny_llama(tmp_path / "llama"), **DEPT)
    other = exported(run, tmp_path / "other")
    said = refusal(capsys, runs / "one-export", other, *UPSTREAM)
    assert f"{other}: was trained on another backbone than {runs / 'one-export'}" in said
    assert "is no name for an adapter" in refusal(capsys, f"a b={runs / 'one-export'}", *UPSTREAM)


def test_a_backbone_that_has_moved(capsys, runs, tmp_path):
    copy = shutil.copytree(runs / "one-export", tmp_path / "copy")
    settings = json.loads((copy / "export.json").read_text())
    settings["backbone"]["name"] = str(tmp_path / "gone")
    (copy / "export.json").write_text(json.dumps(settings))
    assert "no such folder" in refusal(capsys, copy, *UPSTREAM)
    (export,) = read_exports([str(copy)], str(runs / "llava"))
    assert ProxiedAdapter.open(export).adapter.source_ids("vqa: two")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000", "ftp://a", "http://", "http://a?b", "http://user:key@a", "http://a:99999", "http://a b",
        "http://[::1", "http://a\0b",
    ],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigError, match="--upstream: expected the address of vLLM"):
        check_upstream(url)


def test_flags_that_make_no_proxy_and_a_port_in_use(capsys, runs):
    export = runs / "one-export"
    assert "--max-queue: should be" in refusal(capsys, export, *UPSTREAM, "--max-queue", 0)
    assert "--upstream-timeout-s: should be" in refusal(capsys, export, *UPSTREAM, "--upstream-timeout-s", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refusal(capsys, export, *UPSTREAM, "--port", taken.getsockname()[1])
    assert "cannot listen there: Address already in use; --port takes another one, 0 a free one" in said


def test_a_missing_extra(capsys, runs, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "serve", ("starlette-absent",))
    assert "`dept-vl proxy` needs starlette-absent" in refusal(capsys, runs / "one-export", *UPSTREAM)


def test_help_and_refusals_need_no_torch(runs):
    code = (
        "import sys; from dept_vl.cli import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as ended: status = ended.code\n"
        "sys.exit(f'imported {heavy}' if (heavy := {'torch', 'starlette', 'httpx'} & set(sys.modules)) else status)"
    )
    for words, status in ((["--help"], 0), ([str(runs / "one"), *UPSTREAM], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "proxy", *words], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        assert (done.returncode, "imported" in done.stderr) == (status, False), done.stderr
