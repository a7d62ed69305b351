"""Commands run in this process, and the prepared rows that several modules give them."""

from data_prep.demo_world.files import write_scenes
from dept_vl.cli import main
from tests.data_prep.official_files import write_nlvr2
from tests.data_prep.text_rows import cola_folder


def run(capsys, *words):
    """Returns (exit code, standard output, standard error) of one command."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refusal(capsys, *words):
    """Returns what one command says that refuses what it is given."""
    code, _, error = run(capsys, *words)
    assert code == 2
    assert "Traceback" not in error
    return error


def prepared_rows(folder):
    """Prepares a few drawn scenes (vqa), pairs of images (nlvr2) and texts (cola); returns the data folder."""
    write_scenes(folder / "raw", num_train=8, num_restval=0, num_val=2, num_test=2)
    write_nlvr2(folder / "pairs")
    cola_folder(folder / "cola", train=16, validation=8)
    for task, raw, *more in (("vqa", "raw"), ("nlvr2", "pairs", "--subset"), ("cola", "cola", "--subset")):
        words = ["prepare", "--task", task, "--raw", str(folder / raw), "--out", str(folder / "data"), *more]
        assert main(words) == 0
    return folder / "data"
