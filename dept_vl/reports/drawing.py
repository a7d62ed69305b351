"""Figures drawn with matplotlib, which the extra ``plots`` brings."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import ConfigError
from dept_vl.system.atomic import check_output_file, write_bytes
from dept_vl.system.extras import require_extra

if TYPE_CHECKING:
    from dept_vl.reports.figures import FigureData, Panel

SUFFIXES = (".png", ".svg", ".pdf")


def check_drawing(path: Path) -> None:
    """Refuses a picture that cannot be drawn or written.

    Raises:
        ConfigError: Its name says no format that is known, it cannot be written (`check_output_file`), or matplotlib
            is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {path}: a figure is written as {', '.join(SUFFIXES)}; name the file so")
    check_output_file("--out", path)
    require_extra("plots", "`dept-vl report --figure N --out FILE`")


def draw_figure(data: FigureData, path: Path) -> None:
    """Draws a figure into a file, whole or not at all; its name says the format.

    Raises:
        ConfigError: As `check_drawing`.
    """
    check_drawing(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(data.panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(data.title, fontsize=10)
    for axes, panel in zip(figure.subplots(1, len(data.panels), squeeze=False)[0], data.panels, strict=True):
        _draw(axes, panel)
    content, form = io.BytesIO(), path.suffix.lower().removeprefix(".")
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
    with rc_context({"svg.hashsalt": "dept-vl"}):  # the same numbers give the same bytes
        figure.savefig(content, format=form, dpi=120, metadata=undated)
    write_bytes(path, content.getvalue())


def _draw(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x_label, fontsize=8)
    axes.set_ylabel(panel.y_label, fontsize=8)
    axes.tick_params(labelsize=7)
    if panel.is_log:
        axes.set_xscale("log")
    for series in panel.series:
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        if panel.kind == "bars":
            drawn = axes.bar(xs, ys, width=0.6, label=series.name, color="tab:red" if series.is_ours else "tab:blue")
            axes.bar_label(drawn, fmt="%.1f", fontsize=7)
            axes.set_xticks(xs, [point.name for point in series.points])
        elif panel.kind == "curves":
            axes.plot(xs, ys, "o-" if series.is_ours else "s--", label=series.name, markersize=4)
        else:
            axes.plot(xs, ys, "*" if series.is_ours else "o", label=series.name, markersize=9 if series.is_ours else 5)
            for point in series.points:
                axes.annotate(point.name, (point.x, point.y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    if panel.kind == "curves":
        axes.invert_xaxis()
    axes.legend(fontsize=6)
