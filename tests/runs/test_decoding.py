import pytest

from dept_vl.runs.decoding import choose_decoding
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task


@pytest.mark.parametrize(
    ("task", "settings", "tokens"),
    [
        ("squad", {}, 20),
        ("squad", {"decode.max_new_tokens": 19}, 19),
        ("squad", {"data.max_target_length": 5}, 5),
        ("cola", {"decode.max_new_tokens": 1}, 8),  # labels are scored whole
        ("cola", {"decode.max_new_tokens": 19, "decode.method": "generate"}, 19),
    ],
)
def test_answers_are_as_long_as_targets_unless_told_otherwise(task, settings, tokens):
    config = load_config(None, {"task": task, **settings})
    assert choose_decoding(config, get_task(task).under(config.data.protocol)).max_new_tokens == tokens
