"""Chat templates that write the date: a prompt is the same on every day."""

import shutil

import pytest
from transformers import AutoProcessor

from dept_vl.data.chat_template import render_turn
from dept_vl.data.image_template import read_template
from dept_vl.data.text_codec import CausalTextCodec
from dept_vl.errors import ConfigError
from tests.models.vision_language_folders import make_tokenizer, save_tiny_vlm

TURNS = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
DATED = (
    "{%- if date is not defined %}{%- set date = strftime_now('%d %b %Y') %}{%- endif %}\n\nIt is {{ date }}.\n" + TURNS
)
IN_A_MACRO = '  {% macro day() %}[{{ strftime_now("%Y-%m-%d") }}]{% endmacro %}{{ day() }}' + TURNS
HELLO = [{"role": "user", "content": "hello"}]


def told(template):
    tokenizer = make_tokenizer(())
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (DATED, "\nIt is 01 Jan 2025.\n<|user|>hello\n"),
        (IN_A_MACRO, "  [2025-01-01]<|user|>hello\n"),
        (TURNS, "<|user|>hello\n"),
    ],
)
def test_the_date_is_always_one_and_the_rest_as_it_is(template, expected, caplog):
    turn = render_turn(told(template), HELLO)
    assert turn == expected
    dated = told(template.replace("strftime_now('%d %b %Y')", "'01 Jan 2025'"))
    if template != IN_A_MACRO:
        assert turn == dated.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True)
    assert ("writes today's date; here it is always 2025-01-01" in caplog.text) == (template != TURNS)


def test_a_text_codec_and_a_processor_have_it(tmp_path):
    codec = CausalTextCodec(told(DATED), answer_form="chat")
    assert "It is 01 Jan 2025." in codec.tokenizer.decode(codec.source_ids(["hello"], 40)[0])
    folder = shutil.copytree(save_tiny_vlm("qwen3_vl", tmp_path / "a"), tmp_path / "b")
    path = folder / "chat_template.jinja"
    path.write_text("{{ strftime_now('%Y') }} " + path.read_text())
    processor = AutoProcessor.from_pretrained(folder)
    assert read_template(processor).head.startswith("2025 <|im_start|>user")


def test_a_date_that_is_not_written_is_not_spoken_of(caplog):
    template = "{% if messages[0]['role'] != 'system' %}{{ strftime_now('%Y') }}{% endif %}" + TURNS
    assert render_turn(told(template), [{"role": "system", "content": "Be brief."}, *HELLO]).startswith("<|system|>")
    assert "today" not in caplog.text


def test_a_format_that_is_computed_is_refused():
    template = "{% set form = '%' ~ 'Y' %}{{ strftime_now(form) }}" + TURNS
    with pytest.raises(
        ConfigError, match=r"data\.answer_form: .* asks for the date in a format that is not written out"
    ):
        CausalTextCodec(told(template), answer_form="chat")
