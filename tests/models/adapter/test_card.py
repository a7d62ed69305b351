"""The model card: its code loads the adapter, its front matter is what the hub reads."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from dept_vl.api.inputs import from_values, taken
from dept_vl.inference.inputs import PredictionInput, source_texts
from dept_vl.models.adapter.card import FOLDER, model_card
from dept_vl.models.adapter.files import CARD_FILE
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.settings.demo import demo_settings
from dept_vl.settings.load import config_from_tree
from dept_vl.tasks import TASKS, get_task
from dept_vl.tuners import PromptTuningConfig
from tests.api.saved_runs import save_run

SCORES = {"vqa_accuracy": 59.84, "vqa_accuracy/other": 40.0}


def saved(folder, model, *, feature_dim=6, task="vqa"):
    tuner = PromptTuningConfig(num_virtual_tokens=3)
    built, _ = build_model(model, tuner, max_source_length=8, feature_dim=feature_dim, seed=0)
    built.save_pretrained(folder, task=get_task(task), scores=SCORES if task == "vqa" else None)
    return built, (folder / CARD_FILE).read_text()


def snippets(card):
    """Returns the code that asks the run, and that which loads the adapter alone."""
    asking, alone = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return asking, alone


def run_snippet(card, **places):
    code = snippets(card)[1]
    for name, place in {FOLDER: places.pop("folder"), **places}.items():
        assert repr(name) in code
        code = code.replace(repr(name), repr(str(place)))
    found = {}
    exec(code, found)  # what a reader of the card does
    return found["model"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"visual_projection": "vl-t5"},
        {"visual_position_bias": "sequential", "dtype": "bfloat16"},
        {"dropout_rate": 0.0, "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_its_code_loads_the_adapter_whatever_the_settings(t5_folder, tmp_path, settings):
    built, card = saved(tmp_path, ModelConfig(backbone=str(t5_folder), **settings))
    model = run_snippet(card, folder=tmp_path, **{f"path/to/{t5_folder.name}": t5_folder})
    assert torch.equal(model.tuner.soft_prompt, built.tuner.soft_prompt)
    assert str(t5_folder) not in card, "whose folder it was says nothing to others"


def test_the_demo_s_code_runs_as_it_stands(tmp_path):
    config = config_from_tree(demo_settings(get_task("vqa"), "dept"))
    built, _ = build_model(config.model, config.tuner, max_source_length=32, feature_dim=192, seed=0)
    built.save_pretrained(tmp_path, task=get_task("vqa"))
    model = run_snippet((tmp_path / CARD_FILE).read_text(), folder=tmp_path)
    assert model.config.visual_projection == config.model.visual_projection


def test_a_text_task_s_code_runs_too(t5_folder, tmp_path):
    _, card = saved(tmp_path, ModelConfig(backbone=str(t5_folder)), feature_dim=None, task="cola")
    assert run_snippet(card, folder=tmp_path, **{f"path/to/{t5_folder.name}": t5_folder}).visual_projection is None
    assert f"`dept-vl predict --checkpoint {FOLDER} --column sentence=TEXT`" in card
    assert ModelCard(card).data.datasets == ["nyu-mll/glue"]


OWN = {
    "shop.yaml": "{name: shop, kind: question, template: 'ask: {query}', image: file, target: reply}",
    "signs.yaml": "{name: signs, kind: image-label, image: file, target: sign, labels: [stop, go]}",
}
"""Tasks that are files."""


@pytest.mark.parametrize(
    ("task", "kind", "asks"),
    [
        ("vqa", "visual-question-answering", "answer('photo.jpg', question='TEXT')"),
        ("coco", "image-to-text", "caption('photo.jpg')"),
        ("rte", "text-classification", "score(sentence1='TEXT', sentence2='TEXT')"),
        ("shop.yaml", "visual-question-answering", "answer('photo.jpg', query='TEXT')"),
        ("signs.yaml", "image-classification", "score('photo.jpg')"),
    ],
)
def test_its_code_asks_the_run(task, kind, asks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), "red").save("photo.jpg")
    if task in OWN:
        Path(task).write_text(OWN[task])
    card = (save_run(tmp_path / "run", task, "demo") / CARD_FILE).read_text()
    Path(task).unlink(missing_ok=True)  # whoever gets the run has no such file
    assert ModelCard(card).data.pipeline_tag == kind
    code, _ = snippets(card)
    assert f"print(model.{asks})" in code
    exec(code.replace(repr(FOLDER), "'run'"), {})  # what a reader of the card does
    assert capsys.readouterr().out.strip()


@pytest.fixture(scope="module")
def built(t5_folder):
    tuner = PromptTuningConfig(num_virtual_tokens=3)
    return build_model(ModelConfig(backbone=str(t5_folder)), tuner, max_source_length=8, feature_dim=None, seed=0)[0]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_its_code_gives_what_the_task_takes(task, built, t5_folder):
    asking, _ = snippets(model_card(built.adapter_config(task=task), built.config))
    assert f"dept_vl.load({FOLDER!r}, backbone='path/to/{t5_folder.name}')" in asking
    call = ast.parse(asking).body[-1].value.args[0]
    values = [ast.literal_eval(value) for value in call.args]
    columns = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    for way in task.ways():
        assert set(from_values(way, values, columns)) == set(taken(way))
        source_texts(way, [PredictionInput((), columns, "")])


def test_its_front_matter_has_scores_data_licence_and_tags(t5_folder, tmp_path):
    built, card = saved(tmp_path, ModelConfig(backbone=str(t5_folder)))
    data = ModelCard(card).data
    assert (data.library_name, data.license, data.base_model) == ("dept-vl", "unknown", None)
    assert data.tags == ["prompt-tuning", "parameter-efficient-fine-tuning", "vqa"]
    assert data.pipeline_tag == "visual-question-answering"
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_type) == ("vqa", "validation", "vqa_accuracy")
    assert (result.metric_value, result.metric_name) == (59.8, "VQA accuracy")
    assert "| Scores on val | vqa_accuracy 59.8 of 100 |" in card
    config = built.adapter_config(task=get_task("vqa"))
    published = replace(config, backbone=replace(config.backbone, name="google-t5/t5-base"))
    data = ModelCard(model_card(published, built.config)).data
    assert (data.base_model, data.license, data.eval_results) == ("google-t5/t5-base", "apache-2.0", None)
