"""Runs of several adapters on one tiny backbone, and servers of them on free ports."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import numpy as np
import pytest
from PIL import Image

from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.startup import RunReader, read_runs
from tests.api.saved_runs import save_run

DEPT = {
    "tuner.name": "dept", "tuner.budget_tokens": 6, "tuner.num_virtual_tokens": 3, "tuner.allow_nearest": True,
}  # fmt: skip


@pytest.fixture(scope="session")
def served_runs(t5_folder, tmp_path_factory):
    """Two DePT runs and one of prompt tuning about images, captions, a pair of texts, and LoRA, on one T5."""
    folder = tmp_path_factory.mktemp("served")
    save_run(folder / "one", "vqa", t5_folder, seed=1, **DEPT)
    save_run(folder / "two", "vqa", t5_folder, seed=2, **DEPT)
    save_run(folder / "three", "vqa", t5_folder, seed=3)
    save_run(folder / "lora", "vqa", t5_folder, seed=4, **{"tuner.name": "lora", "tuner.rank": 2})
    save_run(folder / "captions", "coco", t5_folder, seed=5)
    save_run(folder / "rte", "rte", t5_folder, seed=6)
    return folder


@pytest.fixture(scope="session")
def other_backbone(save_tiny_t5, tmp_path_factory):
    """A run on another T5."""
    folder = tmp_path_factory.mktemp("other")
    return save_run(folder / "other", "vqa", save_tiny_t5(folder / "t5", seed=7))


def no_check(config, folder):
    """Takes every recorded path as it is."""


class Gate:
    """Holds batches back until it is opened."""

    def __init__(self):
        self.is_open, self.begun, self.sizes = threading.Event(), threading.Event(), []

    def __call__(self, answer):
        def held(rows):
            self.sizes.append(len(rows))
            self.begun.set()
            assert self.is_open.wait(30)
            return answer(rows)

        return held


@contextmanager
def serving(words, *, wrap=None, settings=None, **limits):
    """Serves runs in a thread for the block; yields the server and its port."""
    from dept_vl.serving.app import make_app
    from dept_vl.serving.server import DrainingServer, bind
    from dept_vl.serving.service import Service

    listening = bind("127.0.0.1", 0)
    runs = read_runs(list(map(str, words)), settings or {}, no_check)
    service = Service(RunReader(settings or {}, no_check), runs, ServeLimits(**limits), wrap=wrap)
    server = DrainingServer(service.queue, make_app(service))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server, listening.getsockname()[1]
    finally:
        if isinstance(wrap, Gate):
            wrap.is_open.set()
        server.drain()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(served_runs):
    """A server of all runs, which ends before tests of other modules change what its thread stands on."""
    words = [served_runs / name for name in ("one", "two", "three", "lora", "captions", "rte")]
    with serving(words, max_body_mib=16, max_pixels=1_000_000, max_text=2_000) as (_, port):
        yield port


def call(port, method, path, body=None, headers=None, *, timeout=30):
    """Returns status, headers and JSON or text of a request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        text = response.read().decode()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, response.headers, json.loads(text) if is_json else text
    finally:
        connection.close()


def png(seed=0, size=(40, 30)):
    """Returns the content of an image of drawn colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def data_uri(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def chat(model, text, image=None, **more):
    """Returns the body of a request; the image is a file's content or an address as it is."""
    parts = [] if text is None else [{"type": "text", "text": text}]
    if image is not None:
        url = data_uri(image) if isinstance(image, bytes) else image
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"model": model, "messages": [{"role": "user", "content": parts}], **more}


def ask(port, *values, **more):
    return call(port, "POST", "/v1/chat/completions", chat(*values, **more))


def numbers(port):
    """Returns the metrics by name."""
    lines = call(port, "GET", "/metrics")[2].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for ten seconds")
