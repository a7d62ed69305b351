"""Rows: disks, folders, locks, names, clocks and locales that are not as one expects."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.faults.rows import copy_of_prepared, differs, one_message, reference, row, store_hashes
from benchmarks.faults.world import Child, World, tree_hash
from dept_vl.system.locks import folder_lock

COMMANDS = ("train", "sweep", "prepare", "cache-features", "predict", "eval")


def _command(world: World, kind: str, out: Path) -> list[str]:
    """Returns a command that writes to the folder `out`."""
    if kind == "cache-features":
        shutil.copytree(world.data / "vqa", out / "vqa", dirs_exist_ok=True)
        return ["cache-features", "--config", str(world.config), "--data-dir", str(out), "--workers", "0"]
    if kind == "eval":
        shutil.copytree(world.run, out / "run", dirs_exist_ok=True)
        return ["eval", "--checkpoint", str(out / "run")]
    targets: dict[str, Callable[[Path], list[str]]] = {
        "train": world.train,
        "sweep": world.sweep,
        "prepare": world.prepare,
        "predict": world.predict,
    }
    return targets[kind](out / "out")


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
    data = copy_of_prepared(world)
    cache = ["cache-features", "--config", str(world.config), "--data-dir", str(data), "--workers", "0"]
    children: list[Child] = [world.start(cache), world.start(cache)]
    codes = [(child, child.wait()) for child in children]
    refused = [ended for _, ended in codes if ended.code]
    lost = next((text for ended in refused if (text := one_message(ended))), "")
    world.must(lambda: world.cache(data))
    whole = reference(world, "store", lambda path: _cached_reference(world, path))
    return lost or differs(store_hashes(data), store_hashes(whole))


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


def _train_elsewhere(world: World, data: Path, run: Path, **options: Any) -> str:
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
    return lost or differs(store_hashes(prepared), store_hashes(world.data)) or ("" if out.exists() else "no answers")


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
