import json
import struct
import sys
from importlib import metadata

import pytest
from PIL import Image

from dept_vl.cli import main
from dept_vl.errors import ConfigError, DataError
from dept_vl.reports.drawing import draw_figure
from dept_vl.reports.figures import figure_data, format_figure, read_count
from dept_vl.reports.paper_numbers import PAPER_TABLES
from dept_vl.tasks import get_task
from tests.reports.test_paper_tables import paper_run

GLUE = PAPER_TABLES["table1"].means["glue"]


def with_adapter(folder, count):
    """Puts a file beside a run's scores whose header says how many parameters it holds."""
    header = json.dumps(
        {"tuner.soft_prompt": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    ).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def run(folder, task, value, count=76_800, **overrides):
    return with_adapter(paper_run(folder, task, {get_task(task).primary_metric: value}, overrides), count)


def measured(folder, **left_out):
    """Writes what the benchmark paper-efficiency does, its times and sizes in round numbers."""
    medians = {"prompt tuning, l = 100": {"rate": 1.0, "step_s": 4.0, "over_loaded_gib": 2.0, "answers_per_s": 10.0}}
    for n, m in enumerate((80, 60, 40, 20, 0), start=1):
        values = {"rate": 1.0, "step_s": 4.0 - n / 2, "over_loaded_gib": 2.0 - n / 10, "answers_per_s": 10.0 + n}
        medians[f"DePT, m = {m}"] = {key: value for key, value in values.items() if key not in left_out}
    folder.mkdir(exist_ok=True)
    path = folder / "bench-paper-efficiency-t5-tiny.json"
    path.write_text(json.dumps({"name": "paper efficiency, T5-tiny, padded", "medians": medians}))
    return path


@pytest.mark.parametrize(
    ("text", "count"),
    [("220M", 220e6), ("1.9M", 1.9e6), ("76.8k", 76_800), ("76.8K", 76_800), ("96k (amortised over 8 tasks)", 96_000)],
)
def test_printed_numbers_of_parameters_are_read(text, count):
    assert read_count(text) == pytest.approx(count)


def test_figure_6_has_every_row_of_table_1_with_a_mean():
    data = figure_data(6, [])
    glue, superglue = data.panels
    assert (glue.is_log, glue.x_label) == (True, "trained parameters")
    points = [(point.name, point.x, point.y) for series in glue.series for point in series.points]
    assert len(points) == 17
    assert ("dept", 76_800.0, 85.9) in points
    assert ("fine-tuning", 220e6, 84.9) in points
    assert sum(len(series.points) for series in superglue.series) == 16  # LST has no SuperGLUE
    assert [series.is_ours for series in glue.series] == [False] * 4


def test_figure_6_has_ours_beside_the_means_that_are_complete(tmp_path):
    runs = [run(tmp_path / task, task, 0.5 + n / 100, 70_000) for n, task in enumerate(GLUE)]
    glue, superglue = figure_data(6, runs).panels
    (ours,) = [series for series in glue.series if series.is_ours]
    (point,) = ours.points
    assert (point.name, point.x, point.y) == ("dept", 70_000, pytest.approx(53.5))
    assert not any(series.is_ours for series in superglue.series)


def test_figure_6_has_axes_of_our_own_for_other_tasks(tmp_path):
    runs = [
        run(tmp_path / "dept-rte", "rte", 0.7),
        run(tmp_path / "dept-cola", "cola", 0.5),
        run(tmp_path / "other", "rte", 0.6, 9, **{"model.backbone": "t5-small"}),
    ]
    panel = figure_data(6, runs).panels[-1]
    assert panel.title == "ours, mean over rte, cola"
    assert [(point.name, point.y) for point in panel.series[0].points] == [("dept", pytest.approx(57.5))]


def test_methods_without_a_task_in_common_are_not_drawn_together(tmp_path):
    dept = run(tmp_path / "dept", "rte", 0.7)
    lora = json.loads((run(tmp_path / "lora", "cola", 0.5) / "results-test.json").read_text())
    lora["config"]["tuner"] = {"name": "lora"}
    (tmp_path / "lora" / "results-test.json").write_text(json.dumps(lora))
    with pytest.raises(ConfigError, match=r"no task in common that they could be drawn by \(dept: rte; lora: cola\)"):
        figure_data(6, [dept, tmp_path / "lora"])


def test_a_run_without_its_adapter_has_no_place_on_the_axis(tmp_path):
    paper_run(tmp_path, "rte", {"accuracy": 0.7})
    with pytest.raises(ConfigError, match="no adapter there, so its trained parameters are not known"):
        figure_data(6, [tmp_path])
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"not json")
    assert main(["report", "--figure", "6", str(tmp_path)]) == 2


def test_figure_5_tells_one_rate_from_two(tmp_path):
    runs = [
        run(tmp_path / "one", "rte", 0.5, **{"tuner.lr": 0.3, "tuner.lowrank_lr": 0.3}),
        run(tmp_path / "two", "rte", 0.8, **{"tuner.lr": 0.3, "tuner.lowrank_lr": 5e-4}),
    ]
    paper, ours = figure_data(5, runs).panels
    assert [(p.name, p.y) for p in paper.series[0].points] == [
        ("one rate 0.3", 40.8), ("one rate 0.0005", 54.7), ("two rates", 85.7),
    ]  # fmt: skip
    assert [(p.name, p.y) for p in ours.series[0].points] == [("two rates 0.3, 0.0005", 80.0), ("one rate 0.3", 50.0)]
    assert ours.title == "ours, rte"


def test_figure_5_is_of_dept_alone(tmp_path):
    folder = run(tmp_path, "rte", 0.5)
    content = json.loads((folder / "results-test.json").read_text())
    content["config"]["tuner"] = {"name": "lora"}
    (folder / "results-test.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="Figure 5 is of DePT's two rates, and the run is of 'lora'"):
        figure_data(5, [folder])


def test_figures_3_and_4_are_times_prompt_tuning(tmp_path):
    path = measured(tmp_path)
    (panel,) = figure_data(4, [path]).panels
    assert [series.name for series in panel.series] == [
        "paper, t5-small", "paper, t5-base", "paper, t5-large", "ours, T5-tiny, padded",
    ]  # fmt: skip
    assert [(p.x, p.y) for p in panel.series[1].points] == [
        (100, 1.0), (80, 1.04), (60, 1.07), (40, 1.11), (20, 1.13), (0, 1.17),
    ]  # fmt: skip
    assert [(p.x, p.y) for p in panel.series[-1].points] == [
        (100, 1.0), (80, 1.1), (60, 1.2), (40, 1.3), (20, 1.4), (0, 1.5),
    ]  # fmt: skip
    time, memory = figure_data(3, [tmp_path]).panels
    assert [p.y for p in time.series[0].points] == pytest.approx([1, 0.875, 0.75, 0.625, 0.5, 0.375])
    assert [p.y for p in memory.series[0].points] == pytest.approx([1, 0.95, 0.9, 0.85, 0.8, 0.75])


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}', '{"name": "x", "medians": {"a": {"rate": "fast"}}}'])
def test_what_no_benchmark_has_written_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x.json: not what a benchmark writes .*python -m benchmarks paper-efficiency"):
        figure_data(4, [tmp_path / "x.json"])


def test_figures_of_benchmarks_say_what_they_lack(tmp_path):
    with pytest.raises(DataError, match=r"holds no bench-paper-efficiency-\*.json"):
        figure_data(4, [tmp_path])
    with pytest.raises(ConfigError, match="--figure 3: the paper prints no numbers of it"):
        figure_data(3, [])
    path = measured(tmp_path, answers_per_s=0)
    with pytest.raises(DataError, match="has no answers_per_s of 'DePT, m = 80'; measure it again"):
        figure_data(4, [path])
    path.write_text(json.dumps({"name": "x", "medians": {"DePT, m = 80": {"rate": 1.0}}}))
    with pytest.raises(DataError, match="has no prompt tuning with 100 tokens to compare with"):
        figure_data(4, [path])


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_every_figure_is_a_table_and_a_picture(tmp_path, number):
    paths = [measured(tmp_path)] if number < 5 else [run(tmp_path / "run", "rte", 0.5)]
    data = figure_data(number, paths)
    assert f"Figure {number}" in format_figure(data)
    draw_figure(data, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width == 660 * len(data.panels)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    draw_figure(data, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_bytes()
    draw_figure(data, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_bytes() == drawn
    assert b"<svg" in drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure", "7"], "--figure 7: expected 3, 4, 5, 6"),
        (["--figure", "six"], "invalid int value: 'six'"),
        (["--figure", "6", "--out", "x.gif"], "--out x.gif: a figure is written as .png, .svg, .pdf"),
        (["--figure", "6", "--out", "absent/x.png"], "there is no folder absent/"),
        (["--figure", "6", "--mixed"], "--mixed: is for tables"),
        (["--figure", "6", "--format", "csv"], "--format: is for tables"),
        (["--figure", "6", "--paper", "table1"], "not allowed with argument"),
        ([], "one of the arguments --paper --figure --html is required"),
        (["--figure", "6", "absent"], "absent: no such folder"),
    ],
)
def test_what_cannot_be_drawn_is_one_message_and_exit_code_2(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["report", *words])
    except SystemExit as refused:  # argparse's own
        code = refused.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_table_needs_no_matplotlib_and_a_picture_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    found = metadata.version

    def version(name):
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", "--figure", "6"]) == 0
    assert "paper, single-task: dept" in capsys.readouterr().out
    assert main(["report", "--figure", "6", "--out", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert "needs matplotlib, which is not installed; run: pip install 'dept-vl[plots]'" in error
    assert not (tmp_path / "x.png").exists()
