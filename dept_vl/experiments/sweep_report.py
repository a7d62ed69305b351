"""What a sweep leaves behind beside its runs: ``trials.csv``, ``trials.png`` and ``sweep.json``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from dept_vl.experiments.runs import FinishedRun, run_record
from dept_vl.runs.folder import describe_run
from dept_vl.system.atomic import write_bytes, write_json, write_text


def write_outcome(
    study: optuna.Study, folder: Path, metric: str, keys: Sequence[str], best: FinishedRun | None
) -> dict[str, Path]:
    """Writes table, plot and summary and returns where.

    Args:
        study: All trials in it have ended.
        folder: The sweep's.
        metric: The primary metric, in the scorer's own scale.
        keys: The settings that were varied.
        best: The best run, scored on ``test``; None when none ended.
    """
    trials = study.get_trials()
    files = {"table": folder / "trials.csv", "plot": folder / "trials.png", "summary": folder / "sweep.json"}
    write_text(files["table"], _table(trials, metric, keys))
    write_bytes(files["plot"], _plot(trials, metric, keys))
    summary: dict[str, Any] = {
        "metric": metric,
        "chosen_on": "val",
        "trials": {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState},
        "best": None if best is None else {"params": _params(trials, best), **run_record(best)},
        "made_by": describe_run(),
    }
    write_json(files["summary"], summary)
    return files


def _params(trials: Sequence[FrozenTrial], best: FinishedRun) -> dict[str, Any]:
    return dict(trials[int(best.run_dir.name.rsplit("-", 1)[1])].params)


def _table(trials: Sequence[FrozenTrial], metric: str, keys: Sequence[str]) -> str:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["trial", "state", f"val {metric}", *keys])
    for trial in trials:
        value = trial.value if trial.value is not None else ""
        writer.writerow([trial.number, trial.state.name.lower(), value, *(trial.params.get(key, "") for key in keys)])
    return content.getvalue()


def _plot(trials: Sequence[FrozenTrial], metric: str, keys: Sequence[str]) -> bytes:
    """Draws the value of every ended trial over each setting, one panel a setting, as PNG."""
    figure = Figure(figsize=(3.2 * len(keys), 3.0), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    shown = [trial for trial in trials if trial.value is not None]
    for panel, key in zip(panels, keys, strict=True):
        for state, marker in ((TrialState.COMPLETE, "o"), (TrialState.PRUNED, "x")):
            chosen = [trial for trial in shown if trial.state == state]
            panel.plot(
                [_position(trial, shown, key) for trial in chosen],
                [trial.value for trial in chosen],
                marker,
                alpha=0.6,
                label=state.name.lower() if chosen else None,
            )
        if _is_category(shown, key):
            names = _categories(shown, key)
            panel.set_xticks(range(len(names)), [str(name) for name in names])
        elif any(getattr(trial.distributions[key], "log", False) for trial in shown):
            panel.set_xscale("log")
        panel.set_xlabel(key)
    panels[0].set_ylabel(f"{metric} on val")
    if shown:
        panels[0].legend(fontsize="small")
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _is_category(trials: Sequence[FrozenTrial], key: str) -> bool:
    return any(isinstance(t.distributions[key], optuna.distributions.CategoricalDistribution) for t in trials)


def _categories(trials: Sequence[FrozenTrial], key: str) -> list[Any]:
    distribution = trials[0].distributions[key]
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    return list(distribution.choices)


def _position(trial: FrozenTrial, trials: Sequence[FrozenTrial], key: str) -> float:
    """Returns where a trial stands on a panel's axis: its value, or the place of its value in the list tried."""
    value = trial.params[key]
    return float(_categories(trials, key).index(value)) if _is_category(trials, key) else float(value)
