"""Breaks the package on purpose and counts what was lost: the answer has to be nothing.

Usage: nice -n 5 python benchmarks/faults.py [--times 1.0] [--seed 0] [--only ROW ...] [--json FILE]

Each row does one kind of fault as often as it says times ``--times``, on small data with the packaged models, and
compares with what unbroken commands made. A fault is survived if nothing is lost: results equal to the byte, every
visible file whole, one message and the right exit code. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).parent))
from fault_world import STEPS, Child, Ended, World, tree_hash

from dept_vl.locks import folder_lock
from dept_vl.training_state import list_states

Row = Callable[[World, int], str]
"""Does fault number N and returns what was lost, "" for nothing."""

ROWS: dict[str, tuple[int, Row]] = {}


def row(name: str, times: int) -> Callable[[Row], Row]:
    """Adds a row of the table: its name, and how often it is done."""

    def add(function: Row) -> Row:
        ROWS[name] = (times, function)
        return function

    return add


def differs(given: dict, wanted: dict) -> str:
    """Returns which entries of two mappings differ."""
    keys = sorted(key for key in given.keys() | wanted.keys() if given.get(key) != wanted.get(key))
    return f"differs: {', '.join(keys)}" if keys else ""


def one_message(ended: Ended, code: int = 2) -> str:
    """Returns what is wrong with how a command refused: it is to print one message, no traceback."""
    messages = ended.text.count("dept-vl: error: ")
    if ended.code != code or messages != 1 or "Traceback" in ended.text:
        return f"exit {ended.code}, {messages} messages: {ended.text[-600:]}"
    return ""


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


def _copy_of_prepared(world: World) -> Path:
    data = world.new("data")
    shutil.copytree(world.data / "vqa", data / "vqa")
    return data


def _store(data: Path) -> dict[str, str]:
    (store,) = (data / "features").iterdir()
    return tree_hash(store)


@row("SIGKILL of cache-features, run again", 8)
def kill_cache(world: World, index: int) -> str:
    """Kills a build of the feature store, by turns with loader workers."""
    data, workers = _copy_of_prepared(world), index % 3 // 2
    world.killed(lambda: world.cache(data, workers), "cache", index)
    world.must(lambda: world.cache(data, workers))
    return differs(_store(data), _store(world.data))


@row("SIGKILL of one of two processes of cache-features, run again", 6)
def kill_one_of_two(world: World, index: int) -> str:
    """Kills one process of a launch; the launcher then ends the other one."""
    data = _copy_of_prepared(world)
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
    return differs(_store(data), _store(world.data))


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
    wanted, folder = _reference(world, "sweep", world.sweep), world.new("sweep")
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
    wanted, out = _reference(world, "predict", world.predict).read_bytes(), world.new("predictions")
    world.killed(world.predict(out), "predict", index)
    if out.exists() and out.read_bytes() != wanted:
        return "a part of the file can be seen"
    world.must(world.predict(out))
    return "" if out.read_bytes() == wanted else "other predictions"


def _reference(world: World, kind: str, work: Callable[[Path], list[str]]) -> Path:
    """Returns what an unbroken command wrote, made once."""
    path = world.root / f"reference-{kind}"
    if not path.exists():
        world.must(work(path))
    return path


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
    world.grace_s = max(getattr(world, "grace_s", 0.0), time.monotonic() - sent)
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
    data = _copy_of_prepared(world) if kind == "cache-features" else world.new(kind)
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

        def poisoned(self, loss, **kwargs):
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


COMMANDS = ("train", "sweep", "prepare", "cache-features", "predict", "eval")


def _command(world: World, kind: str, out: Path) -> list[str]:
    """Returns a command that writes to the folder `out`."""
    if kind == "cache-features":
        shutil.copytree(world.data / "vqa", out / "vqa", dirs_exist_ok=True)
        return ["cache-features", "--config", str(world.config), "--data-dir", str(out), "--workers", "0"]
    if kind == "eval":
        shutil.copytree(world.run, out / "run", dirs_exist_ok=True)
        return ["eval", "--checkpoint", str(out / "run")]
    targets = {"train": world.train, "sweep": world.sweep, "prepare": world.prepare}
    return targets[kind](out / "out") if kind in targets else world.predict(out / "out")


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@row("disk full, each command, early and late", 12)
def full_disk(world: World, index: int) -> str:
    """Leaves a command 0 to 400 KB of a small disk."""
    kind, place = COMMANDS[index % 6], world.new("disk")
    with _small_disk(place):
        earlier = place / "earlier.txt"
        earlier.write_text("mine")
        work = _command(world, kind, place)
        before = tree_hash(place)
        free = shutil.disk_usage(place).free
        rooms = {"train": 500_000, "sweep": 500_000, "prepare": 30_000, "cache-features": 40_000}
        room = rooms.get(kind, 0) if index >= 6 else 0
        (place / "filler").write_bytes(b"0" * (free - room))
        ended = world.do(work)
        (place / "filler").unlink()
        after = tree_hash(place)
        lost = one_message(ended) or differs({key: after.get(key) for key in before}, before)
        if lost or kind in ("prepare", "predict", "eval", "cache-features"):
            return lost or (world.do(work).code and "not made when there was room again") or ""
        more = ["--resume"] if (place / "out").exists() else []
        again = world.do([*work, *more])
        if again.code:
            return f"not gone on with when there was room again: {again.text[-600:]}"
        return differs(world.result(place / "out"), world.weights) if kind == "train" else ""


@row("read-only folder, each command", 6)
def read_only(world: World, index: int) -> str:
    """Runs a command that is to write to a file system mounted read-only."""
    kind, place = COMMANDS[index % 6], world.new("read-only")
    with _small_disk(place):
        work = _command(world, kind, place)
        before = tree_hash(place)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        return one_message(world.do(work)) or differs(tree_hash(place), before)


@row("folder deleted under a command, each command", 6)
def deleted(world: World, index: int) -> str:
    """Deletes the output folder as soon as the command has made it."""
    kind, place = COMMANDS[index % 6], world.new("deleted")
    place.mkdir()
    work = _command(world, kind, place)
    target = {"cache-features": place / "features", "eval": place / "run", "predict": place}.get(kind, place / "out")

    def delete() -> None:
        while not target.exists() or (kind == "eval" and not list(target.glob("*.json"))):
            time.sleep(0.002)
        time.sleep(0.15 if kind == "train" else 0.02)
        shutil.rmtree(target, ignore_errors=True)

    child = world.start(work)
    thread = threading.Thread(target=delete, daemon=True)
    thread.start()
    ended = child.wait()
    thread.join(1)
    if ended.code == 0:
        return ""  # it had ended before
    return one_message(ended)


@row("two runs on one folder: the second stops, the first is whole", 3)
def two_runs(world: World, index: int) -> str:
    """Starts a second run, by turns with --resume and --overwrite, while the first is at work."""
    run = world.new("run")
    first = world.start(world.train(run))
    lock = folder_lock(run, "")
    while lock.owner() is None and first.poll() is None:
        time.sleep(0.005)
    second = world.do(world.train(run, *([], ["--resume"], ["--overwrite"])[index % 3]))
    ended = first.wait()
    lost = one_message(second) if ended.code == 0 else f"the first: exit {ended.code}: {ended.text[-600:]}"
    if not lost and f"in use by process {first.pid} on " not in second.text:
        lost = f"no owner named: {second.text[-600:]}"
    return lost or differs(world.result(run), world.weights)


@row("two cache builds on one store", 3)
def two_caches(world: World, index: int) -> str:
    """Starts a second build while the first is at work."""
    data = _copy_of_prepared(world)
    cache = ["cache-features", "--config", str(world.config), "--data-dir", str(data), "--workers", "0"]
    children: list[Child] = [world.start(cache), world.start(cache)]
    codes = [(child, child.wait()) for child in children]
    refused = [ended for _, ended in codes if ended.code]
    lost = next((text for ended in refused if (text := one_message(ended))), "")
    world.must(lambda: world.cache(data))
    whole = _reference(world, "store", lambda path: _cached_reference(world, path))
    return lost or differs(_store(data), _store(whole))


def _cached_reference(world: World, path: Path) -> list[str]:
    shutil.copytree(world.data / "vqa", path / "vqa")
    return ["cache-features", "--config", str(world.config), "--data-dir", str(path), "--workers", "0"]


@row("a lock left by a killed owner: recognised, taken over", 3)
def stale_lock(world: World, index: int) -> str:
    """Kills a run that holds its lock and starts another."""
    run = world.new("run")
    first = world.start(world.train(run))
    while not (run / "metrics.jsonl").exists():
        time.sleep(0.005)
    first.send(signal.SIGKILL)
    first.wait()
    ended = world.do(world.train(run, "--resume"))
    if ended.code or f"its owner is gone, taking over from process {first.pid}" not in ended.text:
        return f"exit {ended.code}: {ended.text[-600:]}"
    return differs(world.result(run), world.weights)


def _jumping_clock() -> None:
    real, count = time.time, [0]

    def jumping() -> float:
        count[0] += 1
        return real() + (-1) ** count[0] * 86400.0 * 400 * (count[0] % 7)

    time.time = jumping


def _train_elsewhere(world: World, data: Path, run: Path, **options) -> str:
    run.parent.mkdir(parents=True, exist_ok=True)
    ended = world.do([*world.train(run), "--data-dir", str(data)], **options)
    return f"exit {ended.code}: {ended.text[-600:]}" if ended.code else differs(world.result(run), world.weights)


NAMES = ["with spaces and 'quotes\" $x; *", "caf\u00e9 \u4e2d\u6587", os.fsdecode(b"not-utf8-\xff\xfe"), "n" * 255]


@row("odd names of folders and images: train, eval, prepare, cache-features, predict", 4)
def odd_names(world: World, index: int) -> str:
    """Runs every command on data in, and to, a folder with an odd name."""
    place = world.new("names") / NAMES[index % 4]
    shutil.copytree(world.data, place / "data")
    run = place / NAMES[index % 4]
    lost = _train_elsewhere(world, place / "data", run)
    if lost:
        return lost
    images = place / "images"
    images.mkdir()
    shutil.copy(next(world.raw.rglob("*.jpg")), images / f"{NAMES[index % 4][:200]}.jpg")
    prepared, out = place / "prepared", place / "answers.jsonl"
    scored = ["eval", "--checkpoint", str(run), "--data-dir", str(place / "data")]
    question = ["--question", "what color is the circle?", "--output", str(out)]
    for work in (
        scored,
        world.prepare(prepared),
        lambda: world.cache(prepared),
        ["predict", "--checkpoint", str(run), "--image", str(images), *question],
    ):
        ended = world.do(work)
        if ended.code:
            return f"exit {ended.code}: {ended.text[-900:]}"
    lost = differs(tree_hash(prepared / "vqa"), tree_hash(world.data / "vqa"))
    return lost or differs(_store(prepared), _store(world.data)) or ("" if out.exists() else "no answers")


@row("very long paths", 1)
def long_path(world: World, index: int) -> str:
    """Trains to a path near the system's limit."""
    return _train_elsewhere(world, world.data, world.new("long").joinpath(*["d" * 200] * 15) / "run")


@row("symlinked data and run folders", 2)
def symlinks(world: World, index: int) -> str:
    """Trains on data behind a link; every other time on links to each file."""
    place = world.new("links")
    place.mkdir()
    if index % 2:
        shutil.copytree(world.data, place / "data", copy_function=os.symlink)
    else:
        (place / "data").symlink_to(world.data)
    (place / "real").mkdir()
    (place / "link").symlink_to(place / "real")
    return _train_elsewhere(world, place / "data", place / "link" / "run")


@row("clock jumps by years", 2)
def clock(world: World, index: int) -> str:
    """Trains while the wall clock goes forth and back."""
    return _train_elsewhere(world, world.data, world.new("run"), before=_jumping_clock)


ENVIRONMENTS = [
    {"TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
]


@row("time zone and locale (a fresh interpreter each)", 3)
def locale(world: World, index: int) -> str:
    """Trains in another time zone and locale, data in a folder with a name outside ASCII."""
    place = world.new("locale") / "caf\u00e9"
    shutil.copytree(world.data, place / "data")
    command = [sys.executable, "-m", "dept_vl", *world.train(place / "run"), "--data-dir", str(place / "data")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **ENVIRONMENTS[index % 3]}  # as many threads as here
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}"
    return differs(world.result(place / "run"), world.weights)


def main() -> int:
    """Runs the rows, prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=1.0, help="factor on every row's count; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="decides the random moments; default: 0")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these words")
    parser.add_argument("--json", type=Path, help="write the table here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    rows = [
        (name, max(1, round(times * options.times)), fault)
        for name, (times, fault) in ROWS.items()
        if not options.only or any(word in name for word in options.only)
    ]
    if os.geteuid() != 0:
        print("not root, so no small disk can be mounted: the rows 'disk full' and 'read-only folder' are left out")
        rows = [entry for entry in rows if not entry[0].startswith(("disk full", "read-only"))]
    with tempfile.TemporaryDirectory(prefix="dept-vl-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the read-only row reads it as another user
        world = World(Path(folder), options.seed)
        _measure(world)
        table = [_do(world, name, times, fault) for name, times, fault in rows]
        grace_s = getattr(world, "grace_s", None)
    lost = sum(entry["lost"] for entry in table)
    tried = sum(entry["tried"] for entry in table)
    seconds = time.monotonic() - started
    print(f"{tried} faults tried, {tried - lost} survived, {lost} lost; {seconds:.0f} s", flush=True)
    if grace_s is not None:
        print(f"from a signal to the end of training: at most {grace_s:.2f} s")
    if options.json:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        content = {"rows": table, "seconds": seconds, "seed": options.seed, "grace_s": grace_s, **machine}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if lost else 0


def _measure(world: World) -> None:
    """Notes how long the commands that are to be killed take."""
    data = _copy_of_prepared(world)
    world.measure("cache", lambda: world.cache(data))
    for kind, work in (("prepare", world.prepare), ("predict", world.predict), ("sweep", world.sweep)):
        world.measure(kind, work(world.new(kind)))


def _do(world: World, name: str, times: int, fault: Row) -> dict:
    """Does one row and prints its line and what was lost."""
    started, losses = time.monotonic(), []
    for index in range(times):
        try:
            lost = fault(world, index)
        except Exception as error:
            lost = f"{type(error).__name__}: {error}"
        if lost:
            losses.append(f"{name}, number {index}: {lost}")
    seconds = time.monotonic() - started
    print(f"| {name} | {times} | {times - len(losses)} | {len(losses)} | {seconds:.0f} s |", flush=True)
    for text in losses:
        print(f"    LOST {text}", flush=True)
    with suppress(OSError):
        for path in world.root.glob("run-*"):
            shutil.rmtree(path, ignore_errors=True)
    return {"fault": name, "tried": times, "survived": times - len(losses), "lost": len(losses), "losses": losses}


if __name__ == "__main__":
    sys.exit(main())
