"""Whatever a file holds, only this package's own errors come out of its readers.

``HYPOTHESIS_PROFILE=long pytest tests/test_fuzz.py`` tries twenty-five times as much.
"""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.converters.vqa import read_questions, read_vocabulary
from data_prep.raw.json_files import read_json, records
from data_prep.raw.karpathy import read_karpathy
from data_prep.raw.text_columns import read_row
from dept_vl.data.feature_format import read_index
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.evaluators.official_files import load_caption_references, load_results, load_vqa_references
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.settings.load import dump_config, load_config, setting_names
from dept_vl.system.bounded_reading import parse_yaml
from dept_vl.tasks.vqa_answers import normalise_answer, soft_scores

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("ci", max_examples=40, deadline=None, suppress_health_check=_QUIET, derandomize=True)
settings.register_profile("long", max_examples=1000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

OURS = (ConfigError, DataError, CheckpointError)
NAMES = st.sampled_from(
    ["images", "annotations", "questions", "question_id", "image_id", "id", "cocoid", "answers", "answer", "caption",
     "split", "filepath", "filename", "answer_type", "question_type", "question", "format", "shards", "fingerprint",
     "file", "bytes", "image_ids", "skipped", "dtype", "num_visual_tokens", "feature_dim", "sha256"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just(1),
    st.sampled_from(["val", "train"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, st.text(max_size=4)), inner, max_size=6)
    ),
    max_leaves=12,
)
BYTES = st.one_of(
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=64),
    st.tuples(VALUES, st.integers(0, 200)).map(lambda pair: json.dumps(pair[0]).encode()[: pair[1]]),
)

READERS = {
    "raw.json": lambda path: records(read_json(path), "images"),
    "vocabulary.json": read_vocabulary,
    "dataset_coco.json": lambda path: read_karpathy(path.parent),
    "results.json": lambda path: load_results(path, "question_id", "answer"),
    "captions.json": load_caption_references,
    "annotations.json": lambda path: load_vqa_references(path, path),
    "v2_OpenEnded_mscoco_val2014_questions.json": lambda path: read_questions(path.parent, "val2014"),
    "index.json": lambda path: read_index(path.parent),
    "adapter_config.json": lambda path: read_adapter_config(path.parent),
}


@given(content=BYTES)
def test_json_readers_raise_nothing_but_our_errors(content):
    with tempfile.TemporaryDirectory() as folder:
        for name, read in READERS.items():
            path = Path(folder) / name
            path.write_bytes(content)
            with suppress(*OURS):
                read(path)


@given(content=st.one_of(BYTES, VALUES.map(lambda value: yaml.safe_dump(value).encode()), st.text().map(str.encode)))
def test_the_configuration_loader_raises_nothing_but_our_errors(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_bytes(content)
        with suppress(ConfigError):
            load_config(path)


@given(overrides=st.dictionaries(st.sampled_from(sorted(setting_names())), VALUES, max_size=4))
def test_settings_are_refused_or_reload_to_the_same(overrides):
    with suppress(ConfigError):
        config = load_config(None, overrides)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.yaml"
            path.write_text(dump_config(config), encoding="utf-8")
            assert load_config(path) == config


@given(text=st.text(alphabet=st.sampled_from("[]{}&*!|>:-?,#'\"%@` ab1\n\t<"), max_size=60))
def test_yaml_raises_nothing_but_its_own_error(text):
    with suppress(yaml.YAMLError):
        parse_yaml(text)


@given(answers=st.lists(st.text(max_size=30), min_size=1, max_size=10))
def test_the_answer_normaliser_takes_any_text(answers):
    for answer in answers:
        assert isinstance(normalise_answer(answer), str)
    assert all(0 < score <= 1 for score in soft_scores(answers).values())


@given(texts=st.lists(st.text(max_size=60), max_size=4))
def test_the_tokenizer_takes_any_text(texts):
    tokenized = tokenize_ptb(texts)
    assert len(tokenized) == len(texts)
    assert all("\n" not in text for text in tokenized)


@given(row=st.fixed_dictionaries(dict.fromkeys("abcdefgh", VALUES)))
def test_columns_of_text_tasks_raise_nothing_but_our_errors(row):
    kinds = ("text", "text or empty", "label", "number", "integer", "texts", "spans", "group")
    for name, kind in zip("abcdefgh", kinds, strict=True):
        with suppress(DataError):
            read_row(row, {name: kind})
