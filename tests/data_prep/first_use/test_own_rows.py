"""Rows of one's own in the cache: what is made on first use, and by whom."""

import pytest

from data_prep.first_use.own_rows import CACHE_VARIABLE, records_data_dir
from dept_vl.errors import DataError
from dept_vl.settings.load import load_config

ROWS = [{"q": f"what {n}", "a": "red"} for n in range(6)]
TEXT = {"name": "mine", "kind": "text", "template": "{q}", "target": "a"}
SEEN = {"name": "mine", "kind": "caption", "image": "q", "target": "a"}


@pytest.mark.parametrize(
    ("task", "remedy"), [(TEXT, "`dept-vl prepare` first, and give --data-dir"), (SEEN, "run `dept-vl cache-features`")]
)
@pytest.mark.parametrize("size", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_several_processes_are_told_to_have_it_made_first(task, remedy, size, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(size, "2")
    config = load_config(None, {"declaration": task, "model.backbone": "demo"})
    with pytest.raises(DataError, match=f"not made yet, and one process makes it; .*{remedy}"):
        records_data_dir(config, ROWS, None)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv(size, "1")
    if task is TEXT:
        assert (records_data_dir(config, ROWS, None) / "mine" / "train.parquet").is_file()
