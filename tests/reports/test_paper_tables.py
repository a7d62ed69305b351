import json
import statistics

import pytest

from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.reports.paper_tables import compare


def write_run(folder, task, metrics, *, protocol="paper", few_shot=None, method="generate"):
    folder.mkdir(parents=True)
    config = {"task": task, "data": {"protocol": protocol, "few_shot": few_shot}}
    (folder / "results-test.json").write_text(json.dumps({"metrics": metrics, "config": config, "decode": method}))
    return folder


def line_of(text, task):
    return next(line for line in text.splitlines() if line.split()[:1] == [task])


def test_ours_stands_beside_the_papers_and_missing_cells_are_dashes(tmp_path):
    run = write_run(tmp_path / "cola", "cola", {"matthews_correlation": 0.612, "accuracy": 0.8})
    text = compare("table1", [run])
    assert line_of(text, "cola").split() == ["cola", "61.2", "63.8", "matthews_correlation", "1", "paper", "generate"]
    assert line_of(text, "mnli").split() == ["mnli", "-", "85.0", "accuracy", "-", "-", "-"]


def test_single_runs_of_one_cell_are_averaged(tmp_path):
    values = [0.80, 0.84, 0.85]
    runs = [write_run(tmp_path / str(n), "rte", {"accuracy": value}) for n, value in enumerate(values)]
    text = line_of(compare("table1", runs), "rte")
    assert f"{100 * statistics.fmean(values):.1f} +- {100 * statistics.stdev(values):.1f}" in text
    assert text.split()[-3] == "3"


def test_a_folder_of_seeds_is_read_as_one(tmp_path):
    content = {
        "config": {"task": "rte", "data": {"protocol": "paper"}},
        "metrics": {"accuracy": {"mean": 0.8, "std": 0.1, "values": [0.7, 0.9]}},
        "runs": [{"decode": "score"}, {"decode": "score"}],
    }
    (tmp_path / "seeds.json").write_text(json.dumps(content))
    assert "80.0 +- 14.1" in line_of(compare("table1", [tmp_path]), "rte")


def test_protocols_are_mixed_only_when_asked_to(tmp_path):
    runs = [
        write_run(tmp_path / protocol, "rte", {"accuracy": value}, protocol=protocol)
        for protocol, value in (("fixed", 0.7), ("paper", 0.8))
    ]
    with pytest.raises(ConfigError, match="runs of different protocols are not comparable: 'fixed'"):
        compare("table1", runs)
    lines = [line.split() for line in compare("table1", runs, mixed=True).splitlines() if line.split()[:1] == ["rte"]]
    assert [(line[1], line[5]) for line in lines] == [("70.0", "fixed"), ("80.0", "paper")]


def test_two_ways_to_decode_get_a_line_each(tmp_path):
    runs = [write_run(tmp_path / m, "rte", {"accuracy": 0.7}, method=m) for m in ("generate", "score")]
    assert compare("table1", runs).count("rte") == 2


def test_a_number_that_is_not_known_is_a_dash(tmp_path):
    run = write_run(tmp_path / "cb", "superglue-cb", {"accuracy": 0.9}, few_shot=16)
    row = next(line for line in compare("table4_5", [run]).splitlines() if "superglue-cb k=16" in line)
    assert row.split()[2:4] == ["90.0", "-"]


def test_a_run_of_another_table_is_refused(tmp_path):
    run = write_run(tmp_path / "cb", "superglue-cb", {"accuracy": 0.9}, few_shot=8)
    with pytest.raises(ConfigError, match="a run of 'superglue-cb' with 8 examples has no cell in table4_5"):
        compare("table4_5", [run])


def test_what_cannot_be_read_is_named(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="holds no test scores"):
        compare("table1", [tmp_path])
    (tmp_path / "results-test.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot read scores"):
        compare("table1", [tmp_path])
    assert main(["report", "--paper", "tabel1", str(tmp_path)]) == 2
    assert "unknown table 'tabel1'; did you mean 'table1'" in capsys.readouterr().err


def test_an_empty_table_prints_the_papers_numbers(capsys):
    assert main(["report", "--paper", "table3"]) == 0
    assert "113.7 +- 0.3" in capsys.readouterr().out
