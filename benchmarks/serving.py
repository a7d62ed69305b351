"""What a server answers with many adapters in one batch, beside one adapter alone and one adapter after another.

    python -m benchmarks.serving --work FOLDER [--adapters 32] [--rounds 5] [--clients 1 8 32] [--seconds 5]

The packaged T5 and CLIP with DePT adapters whose values are drawn: how fast they answer does not depend on what they
learnt. First the model alone, in this process and without HTTP, image features cached, in turns: as many rows as there
are adapters, all of one adapter in a batch; each of an adapter of its own in a batch; and each by itself, which is what
a server does that switches adapters between batches. Answers have four tokens at most. Those of a mixed batch are
compared with those of each row by itself, and all must be equal. Then `dept-vl serve` in a process of its own, under
clients that ask one question after another: the times to an answer.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dept_vl.inference.answer import Answer
from dept_vl.models.build import build_model
from dept_vl.runs.folder import RUN_CONFIG_FILE
from dept_vl.serving.adapters import AskedRow
from dept_vl.serving.engine import Engine
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.protocol import ChatRequest
from dept_vl.serving.service import Service
from dept_vl.serving.startup import RunReader, read_runs
from dept_vl.settings.demo import choose_settings
from dept_vl.settings.load import dump_config

TOKENS = 4
"""Of every answer at most, so that no way has longer ones to make than another."""

QUESTIONS = ("background color", "small circle color", "number of shapes", "is there a red square", "large shape")


def main(arguments: list[str] | None = None) -> None:
    """Makes the runs, measures, and prints two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    runs = [make_run(options.work / f"adapter-{number:03d}", number) for number in range(options.adapters)]
    print(f"{options.adapters} adapters, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print("| batches | rows a second | beside one adapter |")
    rates = throughput(runs, options.rounds)
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates['one adapter']:.2f} |", flush=True)
    print(f"mixed beside one after another: {rates['mixed'] / rates['one after another']:.2f} times")
    print("| --max-batch | clients | answers a second | p50, ms | p99, ms |")
    for max_batch in (1, 32):
        for clients, times, took_s in latencies(runs, max_batch, options.clients, options.seconds):
            p50, p99 = (1000 * float(np.percentile(times, share)) for share in (50, 99))
            print(f"| {max_batch} | {clients} | {len(times) / took_s:.1f} | {p50:.1f} | {p99:.1f} |", flush=True)


def make_run(folder: Path, seed: int) -> Path:
    """Writes a run of DePT on the packaged models, its tensors drawn and the projection the packaged one."""
    config = choose_settings(None, {"task": "vqa", "output_dir": str(folder), "seed": seed})
    encoder = config.model.image_encoder
    task = config.resolve_task()
    model, _ = build_model(
        config.model, config.tuner,
        max_source_length=config.data.max_source_length, feature_dim=encoder.feature_dim(), seed=seed,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.01)
    model.save_pretrained(folder, task=task, features=encoder.load().fingerprint)
    (folder / RUN_CONFIG_FILE).write_text(dump_config(config))
    return folder


def throughput(runs: Sequence[Path], rounds: int) -> dict[str, float]:
    """Returns rows a second, the median over rounds, of each way to answer as many rows as there are runs.

    Raises:
        AssertionError: Two ways answer a row differently.
    """
    found = read_runs(list(map(str, runs)), {}, lambda config, folder: None)
    service = Service(RunReader({}, lambda config, folder: None), found, ServeLimits())
    engine = Engine(service.table.session, service.table.device, service.cache, service.metrics)

    def row(name: str, number: int) -> AskedRow:
        chat = ChatRequest(name, QUESTIONS[number % len(QUESTIONS)], (picture(number % 8),), max_tokens=TOKENS)
        adapter = service.table.get(name)
        assert adapter is not None
        return adapter.ask(chat, service.cache, max_pixels=service.limits.max_pixels)

    def answer(rows: Sequence[AskedRow], size: int) -> list[Answer]:
        return [one for at in range(0, len(rows), size) for one in engine.answer(rows[at : at + size])]

    mixed = [row(run.name, number) for number, run in enumerate(found)]
    answer(mixed, 32)
    mixed = [row(run.name, number) for number, run in enumerate(found)]  # of cached images now
    each = {run.name: [row(run.name, number) for number in range(len(found))] for run in found[:8]}
    assert [one.text for one in answer(mixed, 32)] == [one.text for one in answer(mixed, 1)], (
        "a batch answers otherwise"
    )
    rates: dict[str, list[float]] = {"one adapter": [], "mixed": [], "one after another": []}
    for number in range(rounds):
        alone = list(each.values())[number % len(each)]
        for name, rows, size in (
            ("one adapter", alone, 32), ("mixed", mixed, 32), ("one after another", mixed, 1),
        ):  # fmt: skip
            began = time.perf_counter()
            answer(rows, size)
            rates[name].append(len(rows) / (time.perf_counter() - began))
    service.queue.drain()
    return {name: statistics.median(values) for name, values in rates.items()}


def picture(seed: int) -> bytes:
    """Returns the content of an image of drawn blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def latencies(
    runs: Sequence[Path], max_batch: int, clients: Sequence[int], seconds: float
) -> list[tuple[int, list[float], float]]:
    """Returns, for each number of clients, that number, the seconds to each answer, and the seconds it took in all."""
    words = [*map(str, runs), "--port", "0", "--max-batch", str(max_batch)]
    server = subprocess.Popen(
        [sys.executable, "-m", "dept_vl", "serve", *words], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        found = re.search(r"http://[^:]+:(\d+)/v1", server.stdout.readline())
        assert found is not None, "the server did not start"
        port, names = int(found[1]), [run.name for run in runs]
        ask_for(port, names, 0, 1.0)
        results = []
        for number in clients:
            began = time.perf_counter()
            with ThreadPoolExecutor(number) as pool:
                each = list(pool.map(lambda client: ask_for(port, names, client, seconds), range(number)))
            results.append((number, [one for times in each for one in times], time.perf_counter() - began))
        return results
    finally:
        server.terminate()
        server.wait()


def ask_for(port: int, names: Sequence[str], client: int, seconds: float) -> list[float]:
    """Asks one question after another, each of another adapter, and returns the seconds to each answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    times: list[float] = []
    ends = time.perf_counter() + seconds
    number = client
    while time.perf_counter() < ends:
        body = json.dumps(question(names[number % len(names)], number)).encode()
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        times.append(time.perf_counter() - began)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {content.decode()}")
        number += 1
    connection.close()
    return times


def question(model: str, number: int) -> dict[str, Any]:
    """Returns the body of a request about one of eight images."""
    uri = f"data:image/png;base64,{base64.b64encode(picture(number % 8)).decode()}"
    parts = [
        {"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]},
        {"type": "image_url", "image_url": {"url": uri}},
    ]
    return {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS}


if __name__ == "__main__":
    main()
