"""`dept-vl serve` in a process of its own, under clients: every answer is that of its adapter alone, and how soon."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import combinations
from pathlib import Path

from benchmarks.serving.asking import PICTURES, QUESTIONS, Asked, request_body

Question = tuple[str, int]
"""Adapter and number of what is asked of it: a question about a picture (`asking.request_body`)."""


@dataclass(frozen=True)
class Questions:
    """What clients ask, and what is right.

    Attributes:
        bodies: Of the requests.
        answers: What the adapter answers alone: its rows one by one, in another process than the server's.
    """

    bodies: Mapping[Question, bytes]
    answers: Mapping[Question, str]

    @property
    def told_apart(self) -> float:
        """Share of pairs of adapters, 0 to 1, whose answers to a question differ: mixing them up would be seen."""
        asked: dict[int, list[str]] = {}
        for (_, number), answer in self.answers.items():
            asked.setdefault(number, []).append(answer)
        pairs = [first != second for answers in asked.values() for first, second in combinations(answers, 2)]
        return sum(pairs) / max(1, len(pairs))


@dataclass(frozen=True)
class Load:
    """What became of requests.

    Attributes:
        sent: How many there were.
        times: Seconds to each answer.
        wrong: What came instead of an answer, or whose answer was another than the adapter's own.
        seconds: All of it took.
    """

    sent: int
    times: list[float]
    wrong: list[str]
    seconds: float


def make_questions(runs: Sequence[Path], max_tokens: int) -> Questions:
    """Returns every question about every picture, to every adapter, with its answer."""
    asked = Asked(runs)
    bodies, answers = {}, {}
    for name in asked.names:
        for number in range(len(QUESTIONS) * PICTURES):
            bodies[name, number] = request_body(name, number, max_tokens)
            (answer,) = asked.engine.answer([asked.row(name, number, max_tokens)])
            answers[name, number] = answer.text
    return Questions(bodies, answers)


@contextmanager
def server(runs: Sequence[Path], *flags: str) -> Iterator[int]:
    """Serves runs for the block; gives the port."""
    words = [sys.executable, "-m", "dept_vl", "serve", *map(str, runs), "--port", "0", *flags]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://[^:]+:(\d+)/v1", process.stdout.readline())
        assert found is not None, "the server did not start"
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()


def ask_together(port: int, questions: Questions, clients: int, seconds: float) -> Load:
    """Lets clients, each a connection of its own, ask one question after another for so long."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(lambda client: _ask(port, questions, client, began + seconds), range(clients)))
    took_s = time.perf_counter() - began
    return Load(
        sum(one.sent for one in each), [time_s for one in each for time_s in one.times],
        [said for one in each for said in one.wrong], took_s,
    )  # fmt: skip


def answered(port: int) -> int:
    """Returns how many chat completions the server says it has answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r'^dept_vl_requests_total\{status="200"\} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


def _ask(port: int, questions: Questions, client: int, ends: float) -> Load:
    """Asks questions until then, beginning with that of the client's number."""
    connection, load = HTTPConnection("127.0.0.1", port, timeout=120), Load(0, [], [], 0.0)
    keys, sent = list(questions.bodies), 0
    while time.perf_counter() < ends:
        # A step that shares no factor with their number: each client goes through all of them.
        key = keys[(client * 7 + sent * 41) % len(keys)]
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", questions.bodies[key], {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        took_s = time.perf_counter() - began
        sent += 1
        said = json.loads(content)
        if response.status != 200:
            load.wrong.append(f"{key}: status {response.status}, {said}")
        elif (said["model"], said["choices"][0]["message"]["content"]) != (key[0], questions.answers[key]):
            load.wrong.append(f"{key}: {said['choices'][0]['message']['content']!r} of {said['model']}")
        else:
            load.times.append(took_s)
    connection.close()
    return Load(sent, load.times, load.wrong, 0.0)
