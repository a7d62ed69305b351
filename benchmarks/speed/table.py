"""A benchmark as people read it, and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.speed.harness import Result, Spread
from dept_vl.system.version import __version__

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "h5py", "open_clip_torch", "numpy")


def environment() -> dict[str, Any]:
    """Returns the hardware and the versions a figure belongs to."""
    found: dict[str, Any] = {"dept-vl": __version__, "python": platform.python_version(), "system": platform.platform()}
    found["processor"] = _processor()
    found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def describe_environment(found: dict[str, Any]) -> str:
    """Returns one line: processor, cores, versions."""
    versions = ", ".join(f"{name} {found[name]}" for name in ("python", *_PACKAGES) if found.get(name))
    return f"{found['processor']}, {found['cores']} cores; {versions}"


def to_json(result: Result) -> dict[str, Any]:
    """Returns everything measured, what it comes to, and where."""
    return {
        "name": result.name,
        "unit": result.unit,
        "environment": environment(),
        "notes": list(result.notes),
        "rounds": list(result.rounds),
        "medians": {name: _medians(result, name) for name in result.contestants()},
        "floors": [
            {**asdict(one.floor), "ratio": asdict(one.ratio), "is_met": one.is_met} for one in result.floor_results()
        ],
    }


def format_result(result: Result) -> str:
    """Returns the tables of contestants and of floors."""
    lines = [f"{result.name}: {len(result.rounds)} interleaved rounds, median [least .. most]"]
    keys = [
        key
        for key in ("peak_gib", "over_loaded_gib", "data_wait_share", "parameters", "answer_ms")
        if _has(result, key)
    ]
    heads = ["contestant", f"{result.unit}/s", *keys]
    rows = []
    for name in result.contestants():
        cells = [name, _show(result.spread(name))]
        rows.append([*cells, *(_show(result.spread(name, key)) for key in keys)])
    lines += _align([heads, *rows])
    floors = result.floor_results()
    if floors:
        lines.append("")
        rows = [
            [
                one.floor.what,
                f"{one.floor.kind} {one.floor.bound:g}",
                _show(one.ratio),
                "met" if one.is_met else "NOT MET",
            ]
            for one in floors
        ]
        lines += _align([["floor", "wanted", "measured", ""], *rows])
    lines += [f"- {note}" for note in result.notes]
    lines.append(describe_environment(environment()))
    return "\n".join(lines)


def _medians(result: Result, name: str) -> dict[str, float]:
    keys = dict.fromkeys(key for one in result.rounds for key in one.get(name, {}))
    spreads = {key: result.spread(name, key) for key in keys}
    return {key: spread.median for key, spread in spreads.items() if spread is not None}


def _has(result: Result, key: str) -> bool:
    return any(key in values for one in result.rounds for values in one.values())


def _show(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{_number(spread.median)} [{_number(spread.least)} .. {_number(spread.most)}]"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
