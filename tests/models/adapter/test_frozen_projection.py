"""A visual projection that another run has trained: used as it is, never changed, and not in the adapter."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dept_vl
from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.models.adapter.files import load_adapter
from dept_vl.models.build import build_model, load_model
from dept_vl.models.demo import DEMO
from dept_vl.runs.folder import read_run_config
from dept_vl.runs.hub import push_run
from dept_vl.runs.info import count_budget
from dept_vl.settings.demo import choose_settings

PREFIX = "visual_projection."


def words(t5_folder, tiny_data, folder, *more):
    return [
        "train", "--task", "vqa", "--data-dir", str(tiny_data), "--model.backbone", str(t5_folder),
        "--output-dir", str(folder), "--data.max_source_length", "16",
        "--data.batch_size", "8", "--loop.max_steps", "3", "--loop.eval_every_steps", "3", "--loop.trackers", "[]",
        *more,
    ]  # fmt: skip


PROMPT = ("--tuner", "prompt-tuning", "--tuner.num_virtual_tokens", "3", "--lr", "0.3")


@pytest.fixture(scope="module")
def source(t5_folder, tiny_data, tmp_path_factory):
    """A run that trains the projection, and nothing else."""
    folder = tmp_path_factory.mktemp("source") / "run"
    assert main(words(t5_folder, tiny_data, folder, "--tuner", "none")) == 0
    return folder


@pytest.fixture(scope="module")
def frozen(t5_folder, tiny_data, source, tmp_path_factory):
    """A run of prompt tuning on that projection."""
    folder = tmp_path_factory.mktemp("frozen") / "run"
    assert main(words(t5_folder, tiny_data, folder, *PROMPT, "--model.frozen_projection", str(source))) == 0
    return folder


def refused(line, capsys):
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def model_of(folder):
    config = read_run_config(folder)
    return load_model(folder, config.model)[0]


def test_without_a_method_the_projection_alone_is_trained(source):
    names = load_file(source / "adapter_model.safetensors")
    assert {name.removeprefix(PREFIX) for name in names} == {"linear.weight", "linear.bias"}
    budget = count_budget(read_run_config(source))
    assert set(budget.groups) == {"visual_projection"}
    assert budget.tuner == 0


def test_the_adapter_holds_the_method_alone(frozen, source):
    tensors, config = load_adapter(frozen)
    assert set(tensors) == {"tuner.soft_prompt"}
    model = model_of(frozen)
    assert config.visual.frozen_projection_sha256 == model.visual_projection.sha256()
    assert [group.name for group in model.param_groups()] == ["soft_prompt"]
    trained = {
        name.removeprefix(PREFIX): value for name, value in load_file(source / "adapter_model.safetensors").items()
    }
    for name, value in model.visual_projection.state_dict().items():
        assert torch.equal(value, trained[name])
    assert not any(parameter.requires_grad for parameter in model.visual_projection.parameters())


def test_it_is_read_by_the_same_rules_as_a_trained_one(t5_folder, tiny_data, source, frozen):
    """With the soft prompt left out, the run answers as the projection's own run does."""
    one, other = model_of(source), model_of(frozen)
    other.tuner = other.tuner.without(["soft_prompt"])
    features = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    ids, labels = torch.tensor([[3, 4, 1], [5, 1, 0]]), torch.tensor([[7, 1], [8, 1]])
    with torch.no_grad():
        losses = [model(ids, (ids != 0).long(), labels, features).loss_per_example for model in (one, other)]
    assert torch.equal(*losses)


def test_it_counts_as_parameters_of_the_model_that_are_not_trained(frozen, source):
    ours, theirs = count_budget(read_run_config(frozen)), count_budget(read_run_config(source))
    assert ours.groups == {"soft_prompt": 3 * 16}
    assert ours.total - ours.trainable == theirs.total


def test_a_resumed_run_ends_in_the_same_adapter(t5_folder, tiny_data, source, frozen, tmp_path, capsys):
    line = words(
        t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(source),
        "--loop.save_every_steps", "1",
    )  # fmt: skip
    assert main(line) == 0
    newest = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest)
    assert main([*line, "--resume"]) == 0
    ends = [load_file(folder / "adapter_model.safetensors") for folder in (frozen, tmp_path / "run")]
    assert torch.equal(*(end["tuner.soft_prompt"] for end in ends))


def test_scores_and_parts(frozen, capsys):
    assert main(["eval", "--checkpoint", str(frozen)]) == 0
    assert main(["ablate", str(frozen), "--split", "test"]) == 0
    parts = {line["part"] for line in json.loads((frozen / "ablation-test.json").read_text())["ablated"]}
    assert parts == {"soft_prompt", "features"}


def test_a_folded_run_has_it_too(t5_folder, tiny_data, source, tmp_path):
    run, out = tmp_path / "run", tmp_path / "folded"
    lora = ("--tuner", "lora", "--lr", "0.1", "--tuner.rank", "2")
    assert main(words(t5_folder, tiny_data, run, *lora, "--model.frozen_projection", str(source))) == 0
    assert main(["fold", str(run), "--out", str(out)]) == 0
    assert load_file(out / "adapter_model.safetensors") == {}
    assert read_run_config(out).model.frozen_projection == str(source)


def test_a_run_that_starts_from_another_keeps_its_own(t5_folder, tiny_data, source, frozen, tmp_path):
    line = words(t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(source))
    assert main([*line, "--init-from", str(frozen)]) == 0
    assert f"model.frozen_projection={source}" in (tmp_path / "run" / "run.json").read_text()


def test_another_projection_than_it_was_trained_on_is_refused(t5_folder, tiny_data, frozen, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(words(t5_folder, tiny_data, other, "--tuner", "none", "--seed", "1")) == 0
    said = refused(["eval", "--checkpoint", str(frozen), "--model.frozen_projection", str(other)], capsys)
    assert "was trained with another frozen projection than model.frozen_projection names (sha256 " in said
    assert "USER/NAME@COMMIT" in said


def test_a_copy_of_it_elsewhere_will_do_and_makes_the_same_results(frozen, source, tmp_path, capsys):
    """Results say by its hash what it was, not by where it lay."""
    moved = shutil.copytree(source, tmp_path / "moved")
    run = shutil.copytree(frozen, tmp_path / "run")
    assert main(["eval", "--checkpoint", str(run)]) == 0
    first = json.loads((run / "results-test.json").read_text())
    assert main(["eval", "--checkpoint", str(run), "--model.frozen_projection", str(moved)]) == 0
    assert [path.name for path in run.glob("results-*")] == ["results-test.json"]
    second = json.loads((run / "results-test.json").read_text())
    assert first["settings_sha256"] == second["settings_sha256"]
    assert first["frozen_projection_sha256"] == model_of(frozen).visual_projection.sha256()
    assert main(["eval", "--verify", str(run / "results-test.json"), "--model.frozen_projection", str(source)]) == 0
    shutil.rmtree(moved)
    said = refused(["eval", "--verify", str(run / "results-test.json")], capsys)
    assert "give --model.frozen_projection PATH" in said


def test_python_names_the_argument_that_gives_a_moved_one(t5_folder, tiny_data, source, tmp_path):
    gone, run = shutil.copytree(source, tmp_path / "source"), tmp_path / "run"
    lora = ("--tuner", "lora", "--lr", "0.1", "--tuner.rank", "2")
    assert main(words(t5_folder, tiny_data, run, *lora, "--model.frozen_projection", str(gone))) == 0
    shutil.rmtree(gone)
    for read in (dept_vl.load, partial(dept_vl.fold, out=tmp_path / "folded")):
        with pytest.raises(ConfigError, match="give frozen_projection=PATH"):
            read(run)
    folded = dept_vl.fold(run, tmp_path / "folded", frozen_projection=source)
    assert read_run_config(folded.folder).model.frozen_projection == str(source)


def test_a_run_goes_on_with_a_moved_one_and_not_with_another(t5_folder, tiny_data, source, tmp_path, capsys):
    place, run = shutil.copytree(source, tmp_path / "source"), tmp_path / "run"
    line = words(t5_folder, tiny_data, run, *PROMPT, "--loop.save_every_steps", "1")
    assert main([*line, "--model.frozen_projection", str(place)]) == 0
    shutil.rmtree(max((run / "checkpoints").iterdir(), key=lambda path: path.name))
    moved = place.rename(tmp_path / "moved")
    assert main([*line, "--model.frozen_projection", str(moved), "--resume"]) == 0
    assert main(words(t5_folder, tiny_data, moved, "--tuner", "none", "--seed", "1", "--overwrite")) == 0
    said = refused([*line, "--model.frozen_projection", str(moved), "--resume"], capsys)
    assert f"cannot resume {run}: model.frozen_projection is another than when it was started" in said


def test_more_seeds_are_not_trained_with_another(t5_folder, tiny_data, source, tmp_path, capsys):
    place = shutil.copytree(source, tmp_path / "source")
    line = words(t5_folder, tiny_data, tmp_path / "seeds", *PROMPT, "--model.frozen_projection", str(place), "--seeds")
    assert main([*line, "0"]) == 0
    assert main(words(t5_folder, tiny_data, place, "--tuner", "none", "--seed", "1", "--overwrite")) == 0
    said = refused([*line, "0,1", "--resume"], capsys)
    assert f"cannot resume {tmp_path / 'seeds' / 'seed-0'}: model.frozen_projection is another" in said


def test_a_run_does_not_go_on_with_a_backbone_of_other_weights(save_tiny_t5, tiny_data, source, tmp_path, capsys):
    t5, run = save_tiny_t5(tmp_path / "t5", seed=1), tmp_path / "run"
    line = words(t5, tiny_data, run, *PROMPT, "--loop.save_every_steps", "1")
    assert main(line) == 0
    shutil.rmtree(max((run / "checkpoints").iterdir(), key=lambda path: path.name))
    shutil.rmtree(t5)
    save_tiny_t5(tmp_path / "t5", seed=2)
    assert "backbone.weights_sha256" in refused([*line, "--resume"], capsys)


@pytest.mark.parametrize("inner", ["", "seed-0"])
def test_its_own_run_is_not_emptied(t5_folder, tiny_data, source, tmp_path, capsys, inner):
    place = tmp_path / "place"
    shutil.copytree(source, place / inner)
    line = words(t5_folder, tiny_data, place, *PROMPT, "--model.frozen_projection", str(place / inner), "--overwrite")
    for more in ([], ["--seeds", "0,1"]):
        assert "lies in the run's own folder" in refused([*line, *more], capsys)
    assert (place / inner / "adapter_model.safetensors").is_file()


def test_a_projection_for_other_features_is_refused(t5_folder, tiny_data, source, tmp_path, capsys):
    other = Path(shutil.copytree(source, tmp_path / "other"))
    settings = json.loads((other / "adapter_config.json").read_text())
    features = settings["features"]
    features["pooling"] = "another"
    weights = other / "adapter_model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt", "dept_vl": json.dumps(settings, sort_keys=True)})
    (other / "adapter_config.json").write_text(json.dumps(settings))
    line = words(t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(other))
    said = refused(line, capsys)
    assert f"{other}: the visual features are not those of the training: pooling: trained on 'another'" in said


def test_a_projection_for_a_backbone_of_other_weights_is_said(save_tiny_t5, tiny_data, source, tmp_path, caplog):
    other = save_tiny_t5(tmp_path / "t5", seed=7)
    assert main(words(other, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(source))) == 0
    assert "of other weights than those here" in caplog.text


def test_a_run_on_texts_alone_does_not_need_it(t5_folder, label_data, source, tmp_path):
    gone = shutil.copytree(source, tmp_path / "source")
    line = words(t5_folder, label_data, tmp_path / "run", *PROMPT, "--task", "cola", "--data.max_target_length", "4")
    assert main([*line, "--model.frozen_projection", str(gone)]) == 0
    shutil.rmtree(gone)
    assert main(["eval", "--checkpoint", str(tmp_path / "run")]) == 0
    assert "frozen_projection" not in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("setting", ["optim.projection_lr", "model.visual_projection_std"])
def test_a_setting_of_a_projection_in_training_is_refused(t5_folder, tiny_data, source, tmp_path, capsys, setting):
    line = words(t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(source))
    assert f"--{setting}: the projection of model.frozen_projection is not trained" in refused(
        [*line, f"--{setting}", "1"], capsys
    )


def test_a_method_with_biases_in_the_norms_counts_none_of_the_frozen_ones(tmp_path):
    config = choose_settings(Path(DEMO), {"task": "vqa", "tuner.name": "bitfit"})
    built, _ = build_model(config.model, config.tuner, max_source_length=32, feature_dim=192, seed=0)
    assert count_budget(config).total == built.parameter_budget().total


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda settings: settings.update(visual=None), "trained no visual projection, as it reads text alone"),
        (lambda settings: settings["visual"].update(frozen_projection_sha256="0" * 64), "its own is frozen too"),
        (lambda settings: settings["visual"].update(projection="vl-t5"), "is 'vl-t5', model.visual_projection is"),
    ],
)
def test_a_run_without_such_a_projection_is_refused(t5_folder, tiny_data, source, tmp_path, capsys, change, message):
    other = Path(shutil.copytree(source, tmp_path / "other"))
    settings = json.loads((other / "adapter_config.json").read_text())
    change(settings)
    (other / "adapter_config.json").write_text(json.dumps(settings))
    line = words(t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(other))
    said = refused(line, capsys)
    assert message in said
    assert str(other) in said
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_is_refused(t5_folder, tiny_data, tmp_path, capsys):
    line = words(t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(tmp_path / "gone"))
    said = refused(line, capsys)
    assert said.startswith(f"dept-vl: error: model.frozen_projection: {tmp_path / 'gone'}: no adapter here")


def test_a_projection_of_another_width_is_refused(t5_folder, tiny_data, save_tiny_t5, tmp_path, source, capsys):
    wide = save_tiny_t5(tmp_path / "t5", d_model=24)
    line = words(wide, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(source))
    assert "width of the backbone 16, here 24" in refused(line, capsys)


@pytest.mark.parametrize("more", [("--task", "cola"), ("--model.frozen_projection", "SOURCE")])
def test_a_run_that_would_train_nothing_is_refused(t5_folder, tiny_data, source, tmp_path, capsys, more):
    more = [str(source) if word == "SOURCE" else word for word in more]
    line = words(t5_folder, tiny_data, tmp_path / "run", "--tuner", "none", *more)
    assert "here is none to train" in refused(line, capsys)


def test_a_folder_of_this_machine_is_not_published(frozen):
    with pytest.raises(ConfigError, match=r"model\.frozen_projection: .* is a folder of this machine"):
        push_run(frozen, "me/adapter", settings={"model.backbone": "me/tiny-t5"})


def test_the_card_s_code_finds_it_and_names_no_folder_of_this_machine(frozen, source):
    card = (frozen / "README.md").read_text()
    assert f"frozen_projection='path/to/{source.name}'" in card
    assert "load_model(find_run('path/to/this/folder'), frozen, find_run=find_run)" in card
    assert str(source.parent) not in card


def test_a_damaged_one_is_refused(t5_folder, tiny_data, source, tmp_path, capsys):
    other = Path(shutil.copytree(source, tmp_path / "other"))
    weights = other / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    line = words(t5_folder, tiny_data, tmp_path / "run", *PROMPT, "--model.frozen_projection", str(other))
    assert "damaged" in refused(line, capsys)


def test_the_values_decide_the_hash(source):
    projection = model_of(source).visual_projection
    before = projection.sha256()
    with torch.no_grad():
        projection.linear.bias[0] += 1e-3
    assert projection.sha256() != before
