"""The benchmark of a server runs; under many clients at once nothing is lost or mixed up."""

import pytest

from benchmarks.serving.__main__ import MOVED_APART, main
from benchmarks.serving.load import Questions, answered, ask_together, make_questions
from benchmarks.serving.shapes import make_runs, make_shape
from tests.serving.conftest import serving

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four adapters that answer differently, on the packaged models."""
    work = tmp_path_factory.mktemp("served")
    return make_runs(make_shape("demo", work), work, 4, moved=MOVED_APART)


def test_clients_at_once_get_the_answers_of_the_adapters_they_ask(runs):
    questions = make_questions(runs, max_tokens=8)
    assert questions.told_apart > 0.5
    with serving(runs) as (_, port):
        found = ask_together(port, questions, clients=20, seconds=3.0)
        assert found.wrong == []
        assert answered(port) == found.sent == len(found.times) >= 20
        mixed_up = Questions(questions.bodies, dict.fromkeys(questions.bodies, "another answer"))
        found = ask_together(port, mixed_up, clients=2, seconds=0.1)
        assert len(found.wrong) == found.sent
        assert "'another answer'" not in found.wrong[0]
        lost = Questions(dict.fromkeys(questions.bodies, b"{}"), questions.answers)
        assert "status 400" in ask_together(port, lost, clients=1, seconds=0.1).wrong[0]


@pytest.mark.bench
def test_the_table_has_every_way(tmp_path, capsys):
    pytest.importorskip("peft", reason="the extra `peft` is not installed")
    assert main(["table", "--work", str(tmp_path), "--adapters", "1", "2", "--rounds", "1", "--checked", "4"]) == 0
    said = capsys.readouterr().out
    assert "3,840 parameters an adapter, of PEFT's LoRA 3,840" in said
    assert "from the adapter's own batch of the same rows" in said
    assert "| 2 | " in said
    words = [
        "table",
        "--work",
        str(tmp_path),
        "--adapters",
        "2",
        "--rounds",
        "1",
        "--own-projections",
        "--clock",
        "cpu",
    ]
    assert main(words) == 0
    assert "PEFT" not in capsys.readouterr().out


@pytest.mark.bench
def test_a_server_of_its_own_is_asked(tmp_path, capsys):
    words = ["load", "--work", str(tmp_path), "--adapters", "2", "--clients", "2", "3", "--seconds", "0.2"]
    assert main(words) == 0
    assert "| 3 | " in capsys.readouterr().out


@pytest.mark.bench
def test_a_second_question_is_timed_beside_the_first(tmp_path, capsys):
    assert main(["images", "--work", str(tmp_path), "--tower", "tiny", "--rounds", "2"]) == 0
    assert "times as fast" in capsys.readouterr().out
