"""Runs of tasks that are declared by a file are loaded and asked without the file or its rows."""

import pytest
import yaml

import dept_vl
from dept_vl.errors import ConfigError
from tests.api.saved_runs import save_run

TASKS = {
    "question": {"template": "{about} : {question}", "image": "photo", "target": "answer"},
    "caption": {"image": "photo", "target": "caption"},
    "image-label": {"image": "photo", "target": "label", "labels": ["red", "blue"]},
    "text-label": {"template": "{text}", "target": "label", "labels": {"0": "no", "1": "yes"}},
    "text": {"template": "{left} of {right}", "target": "answer"},
}
TAKES = {
    "question": ("image", "about", "question"), "caption": ("image",), "image-label": ("image",),
    "text-label": ("text",), "text": ("left", "right"),
}  # fmt: skip


@pytest.fixture(scope="module")
def own_runs(t5_folder, tmp_path_factory):
    """A run of each kind, the files that declared their tasks gone."""
    folder = tmp_path_factory.mktemp("own")
    for kind, fields in TASKS.items():
        (folder / "task.yaml").write_text(yaml.safe_dump({"name": f"my-{kind}", "kind": kind, **fields}))
        save_run(folder / kind, str(folder / "task.yaml"), t5_folder)
        (folder / "task.yaml").unlink()
    return folder


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_of_every_kind_is_asked_by_what_its_template_reads(own_runs, pictures, kind):
    model = dept_vl.load(own_runs / kind)
    assert (model.task, model.takes) == (f"my-{kind}", TAKES[kind])
    values = [pictures[0] if name == "image" else "red cube" for name in model.takes]
    assert isinstance(model.answer(*values), str)
    assert (
        model.answer_many([tuple(values), dict(zip(model.takes, values, strict=True))]) == [model.answer(*values)] * 2
    )
    scores = model.score(*values, labels=None if model.labels else ["yes", "no"])
    assert list(scores) == list(model.labels or ("yes", "no"))
    assert model.embeddings([tuple(values)]).shape == (1, 16)


def test_who_captions_and_who_does_not(own_runs, pictures):
    model = dept_vl.load(own_runs / "caption")
    assert model.caption(pictures[0]) == model.answer(pictures[0])
    with model.adapter(own_runs / "image-label"), pytest.raises(ConfigError, match="task 'my-image-label' and not to"):
        model.caption(pictures[0])
