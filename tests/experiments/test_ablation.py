import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.experiments.ablation import ablate
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.build import build_model
from dept_vl.reports.studies import describe_ablation
from dept_vl.runs.session import Session
from dept_vl.settings.load import load_config
from dept_vl.training.trainer import train

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(t5_folder):
    return {
        "model.backbone": str(t5_folder), "data.max_source_length": 16, "data.max_target_length": 2,
        "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8, "loop.max_steps": 6,
        "loop.eval_every_steps": 6, "tuner.lr": 2.0, "tuner.lowrank_lr": 0.5, "optim.projection_lr": 0.2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def images(settings, tiny_data, tmp_path_factory):
    """Settings of a trained run on images."""
    folder = tmp_path_factory.mktemp("images") / "run"
    config = load_config(None, {**settings, "task": "vqa", "data.dir": str(tiny_data), "output_dir": str(folder)})
    train(config, tiny_data)
    enliven(folder)
    return config


@pytest.fixture(scope="module")
def labels(settings, label_data, tmp_path_factory):
    """Settings of a trained run that answers with labels."""
    folder = tmp_path_factory.mktemp("labels") / "run"
    config = load_config(None, {**settings, "task": "cola", "data.dir": str(label_data), "output_dir": str(folder)})
    train(config, label_data)
    enliven(folder)
    return config


def enliven(folder):
    """Replaces what a few steps have learned by large random values, so that every part changes answers."""
    generator = torch.Generator().manual_seed(0)

    def draw(tensors):
        for name, tensor in sorted(tensors.items()):
            scale = 0.5 if name.startswith("visual_projection") else 1.0
            tensors[name] = torch.randn(tensor.shape, generator=generator) * scale

    rewrite(folder, draw)


def changed(config, folder, change):
    """Returns a copy of a run whose adapter's tensors were changed."""
    shutil.copytree(config.run_dir, folder)
    rewrite(folder, change)
    return folder


def rewrite(folder, change):
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata=metadata)


def predictions(folder):
    """Returns what an evaluation answered, in the order of the rows."""
    return tuple(list(record.values())[1] for record in json.loads((folder / "predictions-val.json").read_text()))


def by_part(result):
    return {(one.part, one.state): one for one in result.ablated}


def is_untouched(one):
    return (one.same_answers, one.beside.difference, one.beside.p) == (1.0, 0.0, 1.0)


def test_every_part_is_set_to_its_start_and_to_nothing_and_features_to_zero(images, tiny_data, tmp_path):
    result = ablate(images, tiny_data, images.run_dir, output=tmp_path / "ablation.json")
    names = ["soft_prompt", "lowrank", "dept", "visual_projection"]
    assert list(by_part(result)) == [(n, s) for n in names for s in ("start", "nothing")] + [("features", "zero")]
    assert (result.split, result.metric, result.rows, result.decode) == ("val", "vqa_accuracy", 20, "generate")
    scored = evaluate_run(images, tiny_data, images.run_dir, split="val", folder=tmp_path)
    assert result.trained["vqa_accuracy"] == scored.metrics["vqa_accuracy"]
    assert max(one.same_answers for one in result.ablated if one.state == "nothing") < 1
    assert {one.part: one.parameters for one in result.ablated} == {
        **scored.budget.groups, "dept": scored.budget.tuner, "features": 0,
    }  # fmt: skip
    written = json.loads((tmp_path / "ablation.json").read_text())
    assert [(one["part"], one["state"], one["metrics"]) for one in written["ablated"]] == [
        (one.part, one.state, one.metrics) for one in result.ablated
    ]
    text = describe_ablation(result)
    assert all(len(line) <= 110 for line in text.splitlines() if line.startswith("  "))
    assert "(as trained)" in text


def test_a_part_that_was_nothing_contributes_nothing(images, tiny_data, tmp_path):
    folder = changed(images, tmp_path / "run", lambda tensors: tensors["tuner.lowrank_b"].zero_())
    found = by_part(ablate(images, tiny_data, folder, only=["lowrank", "soft_prompt"]))
    assert is_untouched(found["lowrank", "nothing"])
    assert is_untouched(found["lowrank", "start"])  # A alone is drawn, and B starts at zero
    assert found["soft_prompt", "nothing"].same_answers < 1


def test_a_projection_of_zeros_sees_nothing_in_the_features(images, tiny_data, tmp_path):
    def blind(tensors):
        for name in tensors:
            if name.startswith("visual_projection"):
                tensors[name].zero_()

    folder = changed(images, tmp_path / "run", blind)
    found = by_part(ablate(images, tiny_data, folder, only=["features", "visual_projection"]))
    assert is_untouched(found["features", "zero"])
    sharp = by_part(ablate(images, tiny_data, images.run_dir, only=["features"], output=tmp_path / "own.json"))
    assert sharp["features", "zero"].same_answers < 1


@pytest.mark.parametrize("part", ["soft_prompt", "lowrank", "visual_projection"])
def test_a_part_at_its_start_scores_as_an_adapter_with_the_first_values(images, tiny_data, tmp_path, part):
    """The adapter's file changed by hand, and scored by `dept-vl eval`'s own function."""
    fresh, _ = build_model(images.model, images.tuner, max_source_length=16, feature_dim=6, seed=images.seed)
    inside = {"soft_prompt": "tuner.soft_prompt", "lowrank": "tuner.lowrank", "visual_projection": "visual_projection"}

    def put_start(tensors):
        for name, value in fresh.trainable_state().items():
            if name.startswith(inside[part]):
                tensors[name] = value.clone()

    folder = changed(images, tmp_path / "run", put_start)
    evaluate_run(images, tiny_data, folder, split="val", folder=tmp_path)
    found = by_part(ablate(images, tiny_data, images.run_dir, only=[part], output=tmp_path / "out.json"))
    assert found[part, "start"].answers == predictions(tmp_path)
    assert found[part, "start"].same_answers < 1


def test_zeroed_features_score_as_a_blind_evaluation(images, tiny_data, tmp_path):
    blind = replace(images, data=replace(images.data, visual_features="zero"))
    evaluate_run(blind, tiny_data, images.run_dir, split="val", folder=tmp_path)
    result = ablate(images, tiny_data, images.run_dir, only=["features"], output=tmp_path / "out.json")
    assert by_part(result)["features", "zero"].answers == predictions(tmp_path)
    assert by_part(result)["features", "zero"].same_answers < 1
    again = ablate(blind, tiny_data, images.run_dir, states=["nothing"], output=tmp_path / "out.json")
    assert "features" not in {one.part for one in again.ablated}


def test_labels_are_compared_by_right_and_wrong(labels, label_data, tmp_path):
    result = ablate(labels, label_data, labels.run_dir, split="test", output=tmp_path / "out.json")
    assert (result.metric, result.decode, result.rows) == ("matthews_correlation", "score", 8)
    assert {one.part for one in result.ablated} == {"soft_prompt", "lowrank", "dept"}
    assert {one.beside.test for one in result.ablated} == {"mcnemar"}
    assert "invalid" in result.trained


def test_each_part_of_a_stack_is_set_back(labels, label_data, tmp_path):
    settings = {
        "task": "cola", "tuner.name": "dept+lora", "tuner.parts.dept.budget_tokens": 20,
        "tuner.parts.dept.num_virtual_tokens": 4, "tuner.parts.lora.rank": 2, "tuner.parts.lora.lr": 0.1,
        "data.dir": str(label_data), "output_dir": str(tmp_path / "run"), "model.backbone": labels.model.backbone,
        "data.max_source_length": 16, "data.batch_size": 8, "loop.max_steps": 4, "loop.eval_every_steps": 4,
    }  # fmt: skip
    config = load_config(None, settings)
    train(config, label_data)
    result = ablate(config, label_data, config.run_dir, states=["nothing"])
    names = ["dept.soft_prompt", "dept", "dept.lowrank", "lora.lora", "dept+lora"]
    assert [one.part for one in result.ablated] == names
    assert (config.run_dir / "ablation-val.json").is_file()


def test_everything_is_opened_once_and_a_split_answered_once_for_each_state(images, tiny_data, tmp_path):
    session, passes = Session(), []
    session.backbone(images.model)[0].model.encoder.block[0].register_forward_hook(lambda *_: passes.append(1))
    config = replace(images, data=replace(images.data, eval_batch_size=20))
    loaded = session.backbone(images.model)
    ablate(config, tiny_data, images.run_dir, session=session, output=tmp_path / "out.json")
    assert session.backbone(images.model) is loaded
    assert len(passes) == 1 + 2 * 4 + 1


def test_the_run_is_left_as_it_was(images, tiny_data, tmp_path):
    before = {path: path.read_bytes() for path in images.run_dir.rglob("*") if path.is_file()}
    ablate(images, tiny_data, images.run_dir, only=["lowrank"], output=tmp_path / "out.json")
    assert {path: path.read_bytes() for path in images.run_dir.rglob("*") if path.is_file()} == before


def test_the_start_of_a_run_from_a_source_is_the_source(labels, label_data, tmp_path):
    source = labels.run_dir
    given = {"init.from": str(source), "output_dir": str(tmp_path / "run"), "seed": 5}
    config = load_config(source / "config.yaml", given)
    train(config, label_data)
    own, result = load_file(source / WEIGHTS), ablate(config, label_data, config.run_dir, only=["dept"])
    shutil.copytree(config.run_dir, tmp_path / "at-source")
    with safe_open(config.run_dir / WEIGHTS, framework="pt") as file:
        save_file(own, tmp_path / "at-source" / WEIGHTS, metadata=file.metadata())
    evaluate_run(config, label_data, tmp_path / "at-source", split="val", folder=tmp_path)
    assert by_part(result)["dept", "start"].answers == predictions(tmp_path)
    gone = replace(config, init=replace(config.init, source=str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match=r"init.from: the run started from .*gone, and no adapter is there"):
        ablate(gone, label_data, config.run_dir)
    assert ablate(gone, label_data, config.run_dir, states=["nothing"], only=["dept"]).ablated[0].state == "nothing"


def test_fine_tuning_left_out_is_the_frozen_backbone(labels, label_data, tmp_path):
    given = {
        "task": "cola", "tuner.name": "fine-tuning", "tuner.lr": 0.05, "data.dir": str(label_data),
        "output_dir": str(tmp_path / "run"), "model.backbone": labels.model.backbone, "data.max_source_length": 16,
        "data.batch_size": 8, "loop.max_steps": 4, "loop.eval_every_steps": 4,
    }  # fmt: skip
    config = load_config(None, given)
    train(config, label_data)
    found = by_part(ablate(config, label_data, config.run_dir))
    assert found["backbone", "start"].metrics == found["backbone", "nothing"].metrics
    trained = load_file(config.run_dir / WEIGHTS)
    frozen = dict(Session().backbone(config.model)[0].model.named_parameters())

    def put_back(tensors):
        for name in tensors:
            tensors[name] = frozen[name.removeprefix("backbone.model.")].detach().clone()

    folder = changed(config, tmp_path / "frozen", put_back)
    assert not all(torch.equal(trained[name], value) for name, value in load_file(folder / WEIGHTS).items())
    evaluate_run(config, label_data, folder, split="val", folder=tmp_path)
    assert found["backbone", "nothing"].answers == predictions(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "lowrnak"], "--parts: the run has no part 'lowrnak'; did you mean 'lowrank'"),
        (["--parts", ","], "--parts: names no part"),
        (["--split", "tset"], "invalid choice: 'tset'"),
        (["--set-to", "zero"], "invalid choice: 'zero'"),
        (["--lr", "3"], "--lr: `dept-vl ablate` does not read this setting"),
        (["--output-dir", "x"], "the run's folder is RUN"),
        (["--output", "absent/x.json"], "there is no folder absent/"),
        (["--data-dir", "absent"], "absent/vqa/val.parquet: no such prepared split"),
        (["--config", "demo"], "--config: a run has its own settings"),
        (["--task", "coco"], "was trained on 'vqa', asked for 'coco'"),
    ],
)
def test_what_cannot_be_ablated_is_one_message_and_exit_code_2(images, capsys, words, message):
    try:
        code = main(["ablate", str(images.run_dir), *words])
    except SystemExit as refused:  # argparse's own
        code = refused.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(images.run_dir.glob("ablation-*"))


def test_a_folder_without_a_run_or_an_adapter_is_refused(images, capsys, tmp_path):
    assert main(["ablate", str(tmp_path / "absent")]) == 2
    assert "no run here" in capsys.readouterr().err
    shutil.copytree(images.run_dir, tmp_path / "run")
    (tmp_path / "run" / WEIGHTS).unlink()
    assert main(["ablate", str(tmp_path / "run")]) == 2
    assert f"no adapter here ({WEIGHTS} is missing)" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_beside_the_results(labels, capsys, tmp_path):
    shutil.copytree(labels.run_dir, tmp_path / "run")
    words = ["ablate", str(tmp_path / "run"), "--split", "test", "--set-to", "nothing", "--parts", "lowrank,dept"]
    assert main(words) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.split()[:1] in (["lowrank"], ["dept"])]
    assert [row[:1] + row[2:3] for row in rows] == [["lowrank", "nothing"], ["dept", "nothing"]]
    assert "McNemar's exact test" in said
    assert json.loads((tmp_path / "run" / "ablation-test.json").read_text())["split"] == "test"
