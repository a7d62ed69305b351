"""A server over HTTP: it answers as the runs do in Python, and refuses the rest in OpenAI's form."""

import io
import json
import os
import shutil
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

import dept_vl
from dept_vl.errors import ConfigError
from tests.api.saved_runs import save_run
from tests.serving.conftest import DEPT, Gate, ask, call, chat, data_uri, numbers, png, serving, until

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

QUESTIONS = ["what color is the ball ?", "how many ?", "is the small red cube left of the big ball ?"]
VQA = ("one", "two", "three", "lora")


def refused(answer, status, *, code=None, match=""):
    """Checks a refusal and its form."""
    found, _, body = answer
    assert found == status, body
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert match in body["error"]["message"]


def test_answers_asked_at_once_are_those_of_each_run_in_python(port, served_runs):
    asked = [(name, text, seed) for name in VQA for text in QUESTIONS for seed in (0, 1)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda one: ask(port, one[0], one[1], png(one[2])), asked))
    for name in VQA:
        model = dept_vl.load(served_runs / name)
        for (asked_name, text, seed), (status, _, body) in zip(asked, answers, strict=True):
            if asked_name == name:
                assert status == 200, body
                assert body["choices"][0]["message"]["content"] == model.answer(png(seed), text)
                assert body["model"] == name
                assert body["usage"]["total_tokens"] == sum(
                    body["usage"][f"{side}_tokens"] for side in ("prompt", "completion")
                )


def test_captions_and_pairs_of_texts(port, served_runs):
    _, _, caption = ask(port, "captions", None, png())
    assert caption["choices"][0]["message"]["content"] == dept_vl.load(served_runs / "captions").caption(png())
    pair = {"sentence1": "the ball is red", "sentence2": "red ball"}
    _, _, body = ask(port, "rte", json.dumps(pair))
    assert body["choices"][0]["message"]["content"] == dept_vl.load(served_runs / "rte").answer(**pair)
    refused(ask(port, "rte", "the ball is red"), 400, match='JSON object such as {"sentence1": "...", "sentence2"')
    refused(ask(port, "captions", "describe it", png()), 400, code="text_not_read", match="takes 1 image and no text")


def test_the_official_client(port, served_runs):
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == ["one", "two", "three", "lora", "captions", "rte"]
    assert client.models.retrieve("one").owned_by == "dept-vl"
    own = dept_vl.load(served_runs / "two").answer(png(), QUESTIONS[0])
    body = chat("two", QUESTIONS[0], png())
    whole = client.chat.completions.create(**body, temperature=0, max_tokens=50)
    assert whole.choices[0].message.content == own
    stream = client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == own
    assert chunks[-1].usage == whole.usage
    with pytest.raises(openai.NotFoundError, match="no adapter called 'none'"):
        client.chat.completions.create(**chat("none", "what ?"))
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**body, temperature=0.7)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**body, temperature=0.7, stream=True)


def test_max_tokens_cuts_a_greedy_answer_and_says_so(port):
    _, _, whole = ask(port, "one", QUESTIONS[0], png())
    if whole["usage"]["completion_tokens"] == 1:
        pytest.fail("the drawn adapter answers with nothing; draw another")
    _, _, cut = ask(port, "one", QUESTIONS[0], png(), max_tokens=1)
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 1
    assert whole["choices"][0]["message"]["content"].startswith(cut["choices"][0]["message"]["content"])
    body = json.dumps({"sentence1": "a", "sentence2": "b"})
    refused(ask(port, "rte", body, max_tokens=1), 400, match="answers with one of its labels, of up to 6 tokens")


def test_rows_of_one_batch_have_limits_of_their_own(served_runs):
    with serving([served_runs / "one", served_runs / "two"], max_wait_ms=60_000, max_batch=4) as (_, port):
        asked = [("one", 1), ("two", None), ("two", 2), ("one", 50)]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda one: ask(port, one[0], QUESTIONS[0], png(), max_tokens=one[1]), asked))
        assert numbers(port)['dept_vl_batch_rows_bucket{le="2"}'] == 0
    texts = [body["choices"][0]["message"]["content"] for _, _, body in answers]
    assert texts[1] == dept_vl.load(served_runs / "two").answer(png(), QUESTIONS[0])
    assert texts[3] == dept_vl.load(served_runs / "one").answer(png(), QUESTIONS[0])
    assert texts[3].startswith(texts[0])
    assert texts[1].startswith(texts[2])
    assert [body["usage"]["completion_tokens"] for _, _, body in answers][:3:2] == [1, 2]


def test_earlier_messages_and_cut_texts_are_said_in_a_header(port):
    body = chat("one", "ball " * 30, png())
    body["messages"].insert(0, {"role": "system", "content": "be brief"})
    status, headers, _ = call(port, "POST", "/v1/chat/completions", body)
    assert status == 200
    assert headers["x-dept-vl-note"].startswith("1 earlier messages were not read; the text has more than the 24")


def request_head(length, more=""):
    kind = "content-type: application/json"
    return f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{kind}\r\n{more}content-length: {length}\r\n\r\n"


def bomb():
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def test_bad_input_is_refused_in_openais_form(port):
    text = QUESTIONS[0]
    refused(ask(port, "one", "a" * 10_000_000, png()), 400, code="text_too_long", match="10,000,000 characters")
    refused(ask(port, "one", "a" * 20_000_000, png()), 413, code="body_too_large", match="16,777,216 bytes")
    refused(ask(port, "one", text, bomb()), 400, code="invalid_image", match="1600000000 pixels")
    refused(ask(port, "one", text, png(size=(1100, 1100))), 400, code="invalid_image", match="at most 1,000,000")
    refused(ask(port, "one", text, png()[:200]), 400, code="invalid_image", match="damaged or truncated")
    refused(ask(port, "one", text, b"GIF89a"), 400, code="invalid_image", match="not an image")
    refused(ask(port, "one", text, "data:image/png;base64,!!!"), 400, code="invalid_image", match="not base64")
    refused(ask(port, "one", text, "data:image/png;base64,"), 400, code="invalid_image", match="empty")
    refused(ask(port, "one", text), 400, code="wrong_images", match="0 images; model 'one' (task 'vqa') takes 1 image")
    refused(ask(port, "one", None, png()), 400, match="needs a question")
    refused(ask(port, "rte", text, png()), 400, match="JSON object")
    refused(ask(port, "none", text, png()), 404, code="model_not_found", match="no adapter called 'none'")
    for more in ({"n": 2}, {"top_p": 0.5}, {"tools": [{}]}, {"stop": "."}, {"logit_bias": {}}, {"max_tokens": 0}):
        refused(ask(port, "one", text, png(), **more), 400, match=next(iter(more)))


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254/latest/meta-data/", "https://example.org/a.png", "file:///etc/passwd", "/etc/passwd",
     "data:text/plain,hello", "ftp://example.org/a.png", "data:image/png,hello"],
)  # fmt: skip
def test_no_address_is_ever_fetched(port, address, monkeypatch):
    def fetch(*_):
        raise AssertionError("somebody looks up an address")

    monkeypatch.setattr(socket, "getaddrinfo", fetch)
    body = json.dumps(chat("one", QUESTIONS[0], address)).encode()
    with socket.socket() as plain:
        plain.connect(("127.0.0.1", port))
        head = request_head(len(body), "connection: close\r\n")
        plain.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: plain.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"image_url_refused"' in answer


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"model": "\\ud800"}', b'{"messages": NaN}'],
    ids=["empty", "open", "list", "null", "no-utf8", "deep", "half-character", "nan"],
)  # fmt: skip
def test_bodies_that_are_no_request(port, body):
    status, _, answer = call(port, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["message"]


@pytest.mark.parametrize("messages", [None, [], ["a"], [{"role": "assistant", "content": "a"}], [{"role": "user"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}],
    [{"role": "user", "content": [{"type": "input_audio"}]}], [{"role": "user", "content": [{"type": "image_url"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}]])  # fmt: skip
def test_messages_that_are_none(port, messages):
    body = {"model": "one", "messages": messages}
    refused(call(port, "POST", "/v1/chat/completions", body), 400)


def test_unknown_paths_and_methods(port):
    refused(call(port, "GET", "/v1/completions"), 404)
    refused(call(port, "GET", "/v1/chat/completions"), 405)
    refused(call(port, "GET", "/v1/models/none"), 404, code="model_not_found")


def test_nobody_is_sent_elsewhere(port):
    status, headers, _ = call(port, "GET", "/v1/models/", headers={"host": "example.org"})
    assert (status, headers["location"]) == (404, None)


def test_a_page_in_a_browser_cannot_ask(port):
    body = json.dumps(chat("one", QUESTIONS[0], png())).encode()
    answer = call(port, "POST", "/v1/chat/completions", body, {"content-type": "text/plain"})
    refused(answer, 415, match="should be application/json, got 'text/plain'")


def test_loading_is_off_unless_a_folder_is_given(port):
    refused(call(port, "POST", "/v1/models", {"path": "one"}), 403, match="--allow-loading")
    refused(call(port, "DELETE", "/v1/models/one"), 403, match="--allow-loading")


def test_adapters_come_and_go_while_it_runs(served_runs, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "two").symlink_to(served_runs / "two")
    with serving([served_runs / "one"], allow_loading=served_runs) as (_, port):
        refused(ask(port, "two", QUESTIONS[0], png()), 404, code="model_not_found")
        assert call(port, "POST", "/v1/models", {"path": "two"})[0] == 201
        assert call(port, "POST", "/v1/models", {"path": "two", "name": "again"})[0] == 201
        refused(call(port, "POST", "/v1/models", {"path": "two"}), 409, code="model_exists")
        for path in ("..", "../..", "/etc", "two/../..", ".", "/"):
            refused(call(port, "POST", "/v1/models", {"path": path}), 403)
        refused(call(port, "POST", "/v1/models", {"path": "a\0b"}), 400)
        refused(call(port, "POST", "/v1/models", {"path": "absent"}), 400, code="model_not_loaded", match="no run here")
        refused(call(port, "POST", "/v1/models", {"path": "two", "name": "a/b"}), 400, code="model_not_loaded")
        refused(call(port, "POST", "/v1/models", {"path": "two", "adapter": "x"}), 400)
        own = dept_vl.load(served_runs / "two").answer(png(), QUESTIONS[0])
        assert ask(port, "again", QUESTIONS[0], png())[2]["choices"][0]["message"]["content"] == own
        assert call(port, "DELETE", "/v1/models/one")[2]["deleted"]
        refused(call(port, "DELETE", "/v1/models/one"), 404, code="model_not_found")
        assert [one["id"] for one in call(port, "GET", "/v1/models")[2]["data"]] == ["two", "again"]
        assert call(port, "POST", "/v1/models", {"path": "one"})[0] == 201  # the backbone is still that of all
    with serving([served_runs / "one"], allow_loading=root) as (_, port):
        refused(call(port, "POST", "/v1/models", {"path": "two"}), 403)  # a link that leads out


def test_a_full_queue_a_client_that_leaves_and_a_batch_of_what_waits(served_runs):
    gate, content = Gate(), png()
    with serving([served_runs / "one", served_runs / "two"], wrap=gate, max_queue=3, max_wait_ms=0) as (_, port):
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(ask, port, "one", QUESTIONS[0], content)
            assert gate.begun.wait(20)
            waiting = [pool.submit(ask, port, name, QUESTIONS[1], content) for name in ("one", "two")]
            until(lambda: numbers(port)["dept_vl_queue_length"] == 2)
            with socket.create_connection(("127.0.0.1", port)) as leaving:
                body = json.dumps(chat("two", QUESTIONS[2], content)).encode()
                head = request_head(len(body))
                leaving.sendall(head.encode() + body)
                until(lambda: numbers(port)["dept_vl_queue_length"] == 3)
                status, headers, refusal = ask(port, "one", QUESTIONS[0], content)
                assert (status, refusal["error"]["code"]) == (429, "queue_full")
                assert headers["retry-after"] == "1"
            until(lambda: numbers(port)["dept_vl_queue_length"] == 2)
            until(lambda: numbers(port).get('dept_vl_requests_total{status="499"}') == 1)
            gate.is_open.set()
            assert [one.result()[0] for one in (first, *waiting)] == [200] * 3
        assert gate.sizes == [1, 2]
        found = numbers(port)
        assert found["dept_vl_discarded_total"] == 1
        assert found['dept_vl_requests_total{status="200"}'] == 3
        assert found['dept_vl_requests_total{status="429"}'] == 1
        assert found['dept_vl_batch_adapters_bucket{le="2"}'] == 2
        assert found['dept_vl_batch_adapters_bucket{le="1"}'] == 1
        assert (found["dept_vl_image_cache_misses_total"], found["dept_vl_image_cache_hits_total"]) == (1, 2)
        assert found["dept_vl_request_seconds_count"] == 3


def test_draining_answers_what_waits_and_refuses_what_is_new(served_runs):
    gate = Gate()
    with serving([served_runs / "one"], wrap=gate, max_wait_ms=0) as (server, port), ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, port, "one", text, png()) for text in QUESTIONS]
        assert gate.begun.wait(20)
        until(lambda: numbers(port)["dept_vl_queue_length"] + sum(gate.sizes) == 3)
        draining = threading.Thread(target=server.drain)
        draining.start()
        until(lambda: call(port, "GET", "/health")[0] == 503)
        refused(ask(port, "one", QUESTIONS[0], png()), 503, code="shutting_down")
        gate.is_open.set()
        assert [one.result()[0] for one in asked] == [200] * 3
        draining.join()


def test_a_run_that_is_trained_anew_is_answered_with_as_it_was_loaded(served_runs, t5_folder, tmp_path):
    run = shutil.copytree(served_runs / "one", tmp_path / "run")
    with serving([run]) as (_, port):
        first = [ask(port, "run", text, png())[2]["choices"] for text in QUESTIONS]
        other = save_run(tmp_path / "other", "vqa", t5_folder, seed=9, **DEPT)
        for path in other.iterdir():
            os.replace(path, run / path.name)  # as a training run puts a new adapter in the place of the last
        assert [ask(port, "run", text, png())[2]["choices"] for text in QUESTIONS] == first
        shutil.rmtree(run)
        assert ask(port, "run", QUESTIONS[0], png())[2]["choices"] == first[0]


def test_a_batch_that_fails_is_answered_row_by_row(served_runs):
    def failing(answer):
        def answered(rows):
            if any(len(row.input_ids) > 6 for row in rows):
                raise RuntimeError("this row is too much")
            return answer(rows)

        return answered

    words = [served_runs / "one"]
    with serving(words, wrap=failing, max_wait_ms=200) as (_, port), ThreadPoolExecutor(3) as pool:
        statuses = [one[0] for one in pool.map(lambda text: ask(port, "one", text, png()), QUESTIONS)]
    assert sorted(statuses) in ([200, 200, 500], [200, 500, 500])


def test_images_of_a_cache_of_none_are_encoded_again(served_runs):
    with serving([served_runs / "one"], image_cache=0) as (_, port):
        first, second = (ask(port, "one", QUESTIONS[0], png())[2]["choices"] for _ in range(2))
        assert first == second
        assert numbers(port)["dept_vl_image_cache_misses_total"] == 2


def test_jpegs_are_read_too(port):
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "JPEG")
    assert ask(port, "one", QUESTIONS[0], data_uri(file.getvalue(), "image/jpeg"))[0] == 200


def test_an_address_that_is_taken_is_refused(port):
    from dept_vl.serving.server import bind

    with pytest.raises(ConfigError, match=f"--port {port}: cannot listen there: Address already in use; --port takes"):
        bind("127.0.0.1", port)


def test_answers_do_not_wait_for_an_acknowledgement():
    from dept_vl.serving.server import bind

    with bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # what asyncio sets TCP_NODELAY on
