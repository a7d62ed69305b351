"""Figures drawn with matplotlib, which the extra ``plots`` brings."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import ConfigError
from dept_vl.system.atomic import check_output_file, write_bytes
from dept_vl.system.extras import require_extra

if TYPE_CHECKING:
    from dept_vl.reports.figures import FigureData, Panel

SUFFIXES = (".png", ".svg", ".pdf")

_INK, _GRID = "#010203", "#010204"
_LINES = tuple(f"#01021{number}" for number in range(6))
_PAGE_COLOURS = {
    _INK: "currentColor", _GRID: "var(--rule)", **{name: f"var(--line-{i})" for i, name in enumerate(_LINES)}
}  # fmt: skip
"""Colours that nothing else has -> those of the page, which change with light and dark."""

_INLINE: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "font.family": "sans-serif",
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "grid.color": _GRID, "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False,
}  # fmt: skip
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


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


def draw_inline(panel: Panel, name: str) -> str:
    """Returns a pair of axes as the SVG element of a page, whose colours (``--line-0``, ...) and font it takes.

    Args:
        panel: What is drawn.
        name: What no other figure of the page is called.
    """
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    content = io.StringIO()
    with rc_context({**_INLINE, "svg.hashsalt": name, "axes.prop_cycle": cycler(color=_LINES)}):
        figure = Figure(figsize=(3.6, 2.4), layout="constrained")
        FigureCanvasSVG(figure)
        _draw(figure.subplots(), panel, legend_size=7)
        figure.savefig(content, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = content.getvalue()
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg[svg.index("<svg") :])  # what every figure has, and nothing names
    for colour, own in _PAGE_COLOURS.items():
        svg = svg.replace(colour, own)
    return svg


def _draw(axes: Any, panel: Panel, *, legend_size: int = 6) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x_label, fontsize=8)
    axes.set_ylabel(panel.y_label, fontsize=8)
    axes.tick_params(labelsize=7)
    if panel.is_log:
        axes.set_xscale("log")
    if panel.is_log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the own one writes TeX
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    for series in panel.series:
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        if panel.kind == "bars":
            drawn = axes.bar(xs, ys, width=0.6, label=series.name, color="tab:red" if series.is_ours else "tab:blue")
            axes.bar_label(drawn, fmt="%.1f", fontsize=7)
            axes.set_xticks(xs, [point.name for point in series.points])
        elif panel.kind == "lines":
            marker = "o" if series.is_ours and len(xs) < 20 else None
            style = "-" if series.is_ours else ":"
            axes.plot(xs, ys, style, label=series.name, marker=marker, markersize=3, linewidth=1.4)
        elif panel.kind == "curves":
            axes.plot(xs, ys, "o-" if series.is_ours else "s--", label=series.name, markersize=4)
        else:
            axes.plot(xs, ys, "*" if series.is_ours else "o", label=series.name, markersize=9 if series.is_ours else 5)
            for point in series.points:
                axes.annotate(point.name, (point.x, point.y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    if panel.kind == "curves":
        axes.invert_xaxis()
    axes.legend(fontsize=legend_size)
