"""Runs that a method builds on, met by `train --tuner attempt` and `--tuner mpt`."""

from tests.bad_inputs.adapters import CONFIG, WEIGHTS, both_settings
from tests.bad_inputs.case import Case, copied, cut

METHODS = {"attempt": "sources", "mpt": "teachers"}


def _train(method, spoil, *words):
    def make(folder, base):
        spoil(copied(base.text_run, folder, "other"))
        setting = f"--tuner.{METHODS[method]}"
        given = () if setting in words else (setting, "other")
        length = () if "--tuner.num_virtual_tokens" in words else ("--tuner.num_virtual_tokens", "4")
        return [
            "train", "--task", "cola", "--data-dir", base.text_data, "--output-dir", "run", "--tuner", method,
            "--model.backbone", base.t5, "--data.max_source_length", "16", *given, *length, *words,
        ]  # fmt: skip

    return make


def _backbone(**changes):
    return both_settings(lambda settings: {"backbone": {**settings["backbone"], **changes}})


def _nothing(run):
    pass


_CASES = {
    "nowhere": (lambda run: run.rename(run.parent / "elsewhere"), ("other", "no adapter here")),
    "another-method": (
        both_settings(lambda settings: {"tuner": {"name": "lora"}}),
        ("other", "was trained with 'lora', which has no soft prompt"),
    ),
    "another-width": (_backbone(d_model=32), ("other", "another backbone", "d_model=32, here 16")),
    "another-tokenizer": (_backbone(vocab_size=99), ("other", "another backbone", "vocab_size=99, here")),
    "another-family": (_backbone(family="gpt2"), ("other", "another backbone", "family='gpt2', here 't5'")),
    "other-weights": (_backbone(weights_sha256="0" * 64), ("other", "another backbone", "weights_sha256='0000")),
    "weights-cut": (lambda run: cut(run / WEIGHTS, 0.5), (WEIGHTS, "damaged")),
    "settings-missing": (lambda run: (run / CONFIG).unlink(), ("no adapter here", CONFIG)),
}
_WORDS = {
    "another-length": (("--tuner.num_virtual_tokens", "5"), ("its prompt has 4 tokens, this run's 5",)),
    "an-empty-name": (("--tuner.{}", "other,"), ("tuner.{}",)),
    "too-long": (
        ("--tuner.num_virtual_tokens", "900000"),
        ("tuner.num_virtual_tokens", "2 prompts", "of 900,000 tokens", "more than 1,000,000 vectors"),
    ),
    "a-number": (("--tuner.{}", "[1]"), ("tuner.{}", "valid string")),
    "too-many": (("--tuner.{}", ",".join(["other"] * 101)), ("tuner.{}", "100 items")),
}

CASES = [
    *(
        Case(f"other-runs/{method}-{name}", _train(method, spoil), (f"tuner.{setting}", *says))
        for method, setting in METHODS.items()
        for name, (spoil, says) in _CASES.items()
    ),
    *(
        Case(
            f"other-runs/{method}-{name}",
            _train(method, _nothing, *(word.format(setting) for word in words)),
            tuple(text.format(setting) for text in says),
        )
        for method, setting in METHODS.items()
        for name, (words, says) in _WORDS.items()
    ),
    Case(
        "other-runs/mpt-two-teachers-of-one-task",
        _train("mpt", _nothing, "--tuner.teachers", "other,other"),
        ("tuner.teachers", "names 2 runs for 1 tasks"),
    ),
]
