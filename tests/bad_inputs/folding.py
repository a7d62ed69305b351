"""What cannot be folded, met by ``dept-vl fold``."""

from tests.bad_inputs.adapters import WEIGHTS
from tests.bad_inputs.case import Case, copied


def _fold(spoil=lambda run: None, *more):
    """Copies the text run, a DePT one, spoils it, and folds it."""

    def make(folder, base):
        run = copied(base.text_run, folder, "run")
        words = spoil(run) or ["fold", "run", "--out", "out"]
        return [*words, *more]

    return make


def _taken(run):
    (run.parent / "out").mkdir()
    (run.parent / "out" / "mine").write_text("here")


CASES = [
    Case("fold/dept", _fold(), ("run: cannot be folded: 'dept': A B is added to a token by its place",)),
    Case("fold/taken", _fold(_taken), ("out: the output folder is not empty",)),
    Case("fold/no-adapter", _fold(lambda run: (run / WEIGHTS).unlink()), ("run: no adapter here", WEIGHTS)),
    Case("fold/no-run", _fold(lambda run: (run / "config.yaml").unlink()), ("run: no run here",)),
    Case("fold/nowhere", _fold(lambda run: run.rename(run.parent / "elsewhere") and None), ("run: no run here",)),
    Case("fold/setting", _fold(lambda run: None, "--tuner.lr", "1"), ("--tuner.lr: `dept-vl fold` does not read",)),
]
