"""The benchmark of a server runs, and its mixed batches answer as each row by itself."""

import pytest

from benchmarks.serving import main


@pytest.mark.bench
def test_it_measures(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    main(["--work", str(tmp_path), "--adapters", "2", "--rounds", "1", "--clients", "2", "--seconds", "0.2"])
    said = capsys.readouterr().out
    assert "mixed beside one after another: " in said
    assert "| 32 | 2 | " in said
