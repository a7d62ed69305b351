"""Rows: commands that are killed or signalled, and steps that go bad."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from benchmarks.faults.rows import copy_of_prepared, differs, one_message, reference, row, store_hashes
from benchmarks.faults.world import STEPS, World, tree_hash
from dept_vl.training.checkpoints import list_states


@row("SIGKILL in training, resumed", 30)
def kill_training(world: World, index: int) -> str:
    """Kills a run, sometimes twice, and goes on."""
    run = world.new("run")
    steps: list[str] = []
    for attempt in range(1 + index % 3 // 2):
        more = ["--resume"] if attempt and (run / "config.yaml").exists() else []
        world.killed(world.train(run, *more), "train", index + attempt)
        lost = world.check_checkpoints(run)
        now = [state.name for state in list_states(run / "checkpoints")]
        if lost or len(now) < min(2, len(steps)):
            return lost or f"checkpoints {steps}, then {now}"
        steps = now
    ended = world.do(world.train(run, *(["--resume"] if (run / "config.yaml").exists() else [])))
    hidden = [path.name for path in run.rglob(".*")]
    if ended.code or hidden:
        return f"exit {ended.code}, leftovers {hidden}: {ended.text[-600:]}"
    return differs(world.result(run), world.weights)


@row("SIGKILL of cache-features, run again", 8)
def kill_cache(world: World, index: int) -> str:
    """Kills a build of the feature store, by turns with loader workers."""
    data, workers = copy_of_prepared(world), index % 3 // 2
    world.killed(lambda: world.cache(data, workers), "cache", index)
    world.must(lambda: world.cache(data, workers))
    return differs(store_hashes(data), store_hashes(world.data))


@row("SIGKILL of one of two processes of cache-features, run again", 6)
def kill_one_of_two(world: World, index: int) -> str:
    """Kills one process of a launch; the launcher then ends the other one."""
    data = copy_of_prepared(world)
    children = [world.start(lambda: world.cache(data), env=env) for env in world.launch(2)]
    time.sleep(world.random.uniform(0.02, 2 * world.durations["cache"]))
    children[index % 2].send(signal.SIGKILL)
    time.sleep(0.2)
    children[1 - index % 2].send(signal.SIGTERM)
    time.sleep(0.2)
    children[1 - index % 2].send(signal.SIGKILL)
    for child in children:
        child.wait()
    world.must(lambda: world.cache(data))
    return differs(store_hashes(data), store_hashes(world.data))


@row("SIGKILL of prepare, run again", 6)
def kill_prepare(world: World, index: int) -> str:
    """Kills a preparation: the folder is absent, or whole."""
    data = world.new("data")
    world.killed(world.prepare(data), "prepare", index)
    if not (data / "vqa").exists():
        world.must(world.prepare(data))
    hidden = [path.name for path in data.glob(".*.tmp-*")] if data.exists() else []
    return f"leftovers {hidden}" if hidden else differs(tree_hash(data / "vqa"), tree_hash(world.data / "vqa"))


@row("SIGKILL of sweep, resumed", 4)
def kill_sweep(world: World, index: int) -> str:
    """Kills a sweep of two runs and goes on."""
    wanted, folder = reference(world, "sweep", world.sweep), world.new("sweep")
    world.killed(world.sweep(folder), "sweep", index)
    world.must(world.sweep(folder, *(["--resume"] if (folder / "sweep.yaml").exists() else [])))
    return differs(_sweep_result(folder), _sweep_result(wanted))


def _sweep_result(folder: Path) -> dict[str, str]:
    hashes = tree_hash(folder)
    results = sorted(path.relative_to(folder) for path in folder.rglob("results-test.json"))
    scores = {str(path): json.dumps(json.loads((folder / path).read_text())["metrics"]) for path in results}
    return {**{k: v for k, v in hashes.items() if k.endswith((".safetensors", "predictions-test.json"))}, **scores}


@row("SIGKILL of predict to a file, run again", 6)
def kill_predict(world: World, index: int) -> str:
    """Kills predictions: their file is absent, or whole."""
    wanted, out = reference(world, "predict", world.predict).read_bytes(), world.new("predictions")
    world.killed(world.predict(out), "predict", index)
    if out.exists() and out.read_bytes() != wanted:
        return "a part of the file can be seen"
    world.must(world.predict(out))
    return "" if out.read_bytes() == wanted else "other predictions"


def _signal_training(world: World, number: int, processes: int = 1) -> str:
    """Signals a run and goes on as the printed line says; again with another run where it had ended before."""
    for _ in range(10):
        lost = _signal_once(world, number, processes)
        if lost is not None:
            return lost
    return "every run had ended before its signal"


def _signal_once(world: World, number: int, processes: int) -> str | None:
    run = world.new("run")
    launch = world.launch(processes) if processes > 1 else [{}]
    children = [world.start(world.train(run), env=env) for env in launch]
    steps = world.random.randint(1, STEPS - 2)
    while _lines(run / "metrics.jsonl") < steps and children[0].poll() is None:
        time.sleep(0.002)
    time.sleep(world.random.uniform(0, 0.05))
    sent = time.monotonic()
    for child in children:
        child.send(number)
    ended = [child.wait() for child in children]
    world.grace_s = max(world.grace_s or 0.0, time.monotonic() - sent)
    text = ended[0].text
    if all(one.code == 0 for one in ended) and f"trained {STEPS} steps" in text:
        return None
    if {one.code for one in ended} != {128 + number} or "Traceback" in text:
        return f"exit {[one.code for one in ended]}: {text[-600:]}"
    lost = world.check_checkpoints(run)
    command = [
        line.rpartition("go on with")[2].partition(": ")[2] for line in text.splitlines() if "stopped by" in line
    ]
    if lost or len(command) != 1 or not list_states(run / "checkpoints"):
        return lost or f"no line that says how to go on, or no checkpoint: {text[-600:]}"
    words = shlex.split(command[0])[1:]
    launch = world.launch(processes) if processes > 1 else [{}]
    again = [one.wait() for one in [world.start(words, env=env) for env in launch]]
    if any(one.code for one in again):
        return f"exit {[one.code for one in again]}: {again[0].text[-600:]}"
    given, wanted = world.result(run), world.weights
    if processes > 1:  # equal up to the order of additions; the step reached is what can be compared
        return differs({"step": given["step"]}, {"step": wanted["step"]})
    return differs(given, wanted)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


row("SIGINT in training: checkpoint, exit 130, resumed", 5)(lambda w, i: _signal_training(w, signal.SIGINT))
row("SIGTERM in training: checkpoint, exit 143, resumed", 5)(lambda w, i: _signal_training(w, signal.SIGTERM))
row("SIGTERM to both processes of a launch, resumed", 2)(lambda w, i: _signal_training(w, signal.SIGTERM, 2))


@row("SIGINT and SIGTERM in prepare, cache-features, predict, eval", 8)
def signal_others(world: World, index: int) -> str:
    """Stops a command that has nothing to save: at once, with a line, and whole when run again."""
    number = (signal.SIGINT, signal.SIGTERM)[index // 4 % 2]
    kind = ("prepare", "cache-features", "predict", "eval")[index % 4]
    data = copy_of_prepared(world) if kind == "cache-features" else world.new(kind)
    cache = ["cache-features", "--config", str(world.config), "--data-dir", str(data), "--workers", "0"]
    score = ["eval", "--checkpoint", str(world.run), "--output", str(data)]
    work = {"prepare": world.prepare(data), "cache-features": cache, "predict": world.predict(data), "eval": score}[
        kind
    ]
    child = world.start(work)
    time.sleep(world.random.uniform(0.05, 0.25))
    child.send(number)
    ended = child.wait()
    if ended.code not in (0, 128 + number) or "Traceback" in ended.text:
        return f"exit {ended.code}: {ended.text[-600:]}"
    if ended.code and "go on with: dept-vl " not in ended.text:
        return f"no line that says how to go on: {ended.text[-600:]}"
    if not (ended.code == 0 and kind == "prepare"):
        world.must(work)
    return differs(tree_hash(data / "vqa"), tree_hash(world.data / "vqa")) if kind == "prepare" else ""


def _poison(number: int, factor: float, times: int = 1) -> Callable[[], None]:
    """Returns what multiplies the loss of some steps, from `number` on, before its backward pass."""

    def install() -> None:
        backward, count = Accelerator.backward, [0]

        def poisoned(self: Accelerator, loss: Tensor, **kwargs: Any) -> Any:
            count[0] += 1
            return backward(self, loss * (factor if number <= count[0] < number + times else 1.0), **kwargs)

        Accelerator.backward = poisoned

    return install


@row("NaN or infinite loss, exploding gradients: stopped and named", 5)
def diverge(world: World, index: int) -> str:
    """Makes a loss or a gradient bad in one of five ways."""
    run, at = world.new("run"), 8
    ways: list[tuple[list[str], Callable[[], None] | None]] = [
        ([], _poison(at, float("nan"))),
        ([], _poison(at, float("inf"))),
        ([], _poison(at, 1e30)),
        (["--loop.exploded_norm", "1e4"], _poison(at, 1e7)),
        (["--projection-lr", "1e37"], None),
    ]
    more, before = ways[index % 5]
    ended = world.do(world.train(run, *more), before=before)
    lost = one_message(ended, code=1) or world.check_checkpoints(run)
    named = all(word in ended.text for word in ("step ", "examples [", "gradient not finite or exploded in "))
    if lost or not named:
        return lost or f"not named: {ended.text[-600:]}"
    states = [state.name for state in list_states(run / "checkpoints")]
    if before and states != ["step-00000003", "step-00000006"]:
        return f"the last good checkpoints are not there: {states}"
    if before and not more:
        world.must(world.train(run, "--resume"))
        return differs(world.result(run), world.weights)
    return ""


@row("NaN loss with --on-nan skip: counted, gone on", 5)
def skip(world: World, index: int) -> str:
    """Skips one to five bad steps, twice with the same result."""
    bad, results = index % 5 + 1, []
    for _ in range(2):
        run = world.new("run")
        ended = world.must(world.train(run, "--on-nan", "skip"), before=_poison(3, float("nan"), bad))
        if f"({bad} of them skipped: loss or gradient bad)" not in ended.text:
            return f"the summary does not count them: {ended.text[-600:]}"
        results.append(world.result(run))
    counted = json.loads((run / "training.json").read_text())["skipped_steps"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = max(line.get("skipped_steps", 0) for line in lines)
    if (counted, shown) != (bad, bad):
        return f"{bad} skipped, {counted} and {shown} counted"
    return world.check_checkpoints(run) or differs(*results)
