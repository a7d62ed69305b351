"""Trained runs scored on texts that begin otherwise: the rows, and that the run's own files stay as they are."""

import pyarrow.parquet as pq

from benchmarks.positions import NEUTRAL, main, score
from dept_vl.cli import main as dept_vl


def test_a_run_is_scored_on_its_rows_with_words_before_them(t5_folder, tiny_data, tmp_path, capsys):
    run = tmp_path / "run"
    words = [
        "train", "--task", "vqa", "--data-dir", str(tiny_data), "--model.backbone", str(t5_folder), "--tuner", "dept",
        "--tuner.budget_tokens", "4", "--tuner.allow_nearest", "true", "--output-dir", str(run),
        "--data.max_source_length", "16", "--loop.max_steps", "1", "--loop.eval_every_steps", "1",
        "--loop.trackers", "[]",
    ]  # fmt: skip
    assert dept_vl(words) == 0
    assert dept_vl(["eval", "--checkpoint", str(run)]) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    plain = score(run, "as they are", tmp_path / "work")
    assert f"  {plain:.1f}  of 100" in capsys.readouterr().out
    main(["--work", str(tmp_path / "work"), f"dept={run},{run}"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith(f"| dept | {plain:.1f} ± 0.0 |")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    questions = [
        pq.read_table(folder / "vqa" / "test.parquet")["question"].to_pylist()
        for folder in (tiny_data, tmp_path / "work" / "vqa-words-before", tmp_path / "work" / "vqa-twice-as-long")
    ]
    assert questions[1] == [f"{NEUTRAL['vqa']} {question}" for question in questions[0]]
    assert questions[2] == [f"{question} {question}" for question in questions[0]]
