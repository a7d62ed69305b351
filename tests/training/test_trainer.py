import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from dept_vl.cli import main
from dept_vl.data.manifest import SplitInfo, manifest_schema, open_split, task_folder, write_split
from dept_vl.data.sampler import BatchRequest
from dept_vl.errors import ConfigError, DataError, PrunedError
from dept_vl.evaluators import EVALUATORS
from dept_vl.evaluators.base import PERCENT, Evaluator
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import FEW_SHOT_FILE, SUMMARY_FILE
from dept_vl.settings.load import dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.training.batches import read_steps
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import Trainer, train
from tests.training.states import adapter_at

SCORES = {"vqa_accuracy": PERCENT}


@pytest.fixture
def config(t5_folder, tmp_path) -> TrainConfig:
    """Six steps of DePT on the tiny task: dropout on, targets drawn, lengths grouped."""
    return load_config(
        None,
        {
            "output_dir": str(tmp_path / "run"),
            "model.backbone": str(t5_folder),
            "data.max_source_length": 16,
            "tuner.budget_tokens": 20,
            "tuner.num_virtual_tokens": 4,
            "data.batch_size": 8,
            "loop.max_steps": 6,
            "loop.eval_every_steps": 3,
            "loop.save_every_steps": 2,
            "loop.log_every_steps": 1,
        },
    )


class KilledError(Exception):
    pass


class KillAt(Callback):
    def __init__(self, killed_at: int) -> None:
        self.killed_at = killed_at

    def on_step(self, config, step):
        if step == self.killed_at:
            raise KilledError


def adapter(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / WEIGHTS_FILE)


def final_weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(list_states(run_dir / "checkpoints")[-1] / "trainable.safetensors")


def losses(run_dir: Path) -> list[float]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def with_settings(config: TrainConfig, run_dir: Path, **sections) -> TrainConfig:
    changed = {name: replace(getattr(config, name), **values) for name, values in sections.items()}
    return replace(config, output_dir=str(run_dir), **changed)


def val_losses(run_dir: Path) -> list[float]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record["val/loss"] for record in map(json.loads, lines) if "val/loss" in record]


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "adafactor"}, {"name": "adafactor", "factored": False}, {"name": "adafactor", "scale_parameter": True},
        {"name": "prodigy"}, {"name": "schedule-free"},
    ],
    ids=str,
)  # fmt: skip
def test_a_run_with_another_optimiser_is_resumed_to_the_bit(config, tiny_data, tmp_path, settings):
    config = with_settings(config, tmp_path / "run", optim=settings)
    unbroken = with_settings(config, tmp_path / "unbroken")
    train(unbroken, tiny_data)
    with pytest.raises(KilledError):
        train(config, tiny_data, callbacks=[KillAt(3)])
    train(config, tiny_data, resume=True)
    assert_same(final_weights(config.run_dir), final_weights(unbroken.run_dir))
    assert losses(config.run_dir) == losses(unbroken.run_dir)
    train(with_settings(config, tmp_path / "adamw", optim={"name": "adamw"}), tiny_data)
    other = final_weights(tmp_path / "adamw")
    assert any(not torch.equal(other[name], value) for name, value in final_weights(config.run_dir).items())


def length_of(run_dir: Path) -> dict[str, int]:
    return json.loads((run_dir / "run.json").read_text())["length"]


def test_a_run_of_epochs_is_the_run_of_as_many_steps(config, tiny_data, tmp_path):
    steps = with_settings(config, tmp_path / "steps", loop={"max_steps": 14, "eval_every_steps": 7})
    in_epochs = {"max_steps": None, "epochs": 2, "eval_every_steps": None, "eval_every_epochs": 1}
    epochs = with_settings(config, tmp_path / "epochs", loop=in_epochs)
    train(steps, tiny_data)
    with pytest.raises(KilledError):
        train(epochs, tiny_data, callbacks=[KillAt(9)])
    train(epochs, tiny_data, resume=True)
    assert_same(final_weights(epochs.run_dir), final_weights(steps.run_dir))
    assert losses(epochs.run_dir) == losses(steps.run_dir)
    assert length_of(epochs.run_dir) == {"max_steps": 14, "eval_every_steps": 7, "steps_per_epoch": 60 // 8}
    assert (epochs.run_dir / "config.yaml").read_text() == dump_config(epochs)
    assert "length" not in json.loads((steps.run_dir / "run.json").read_text())


def test_half_an_epoch_of_few_rows_is_a_step(config, tiny_data, tmp_path):
    few = {"batch_size": 16, "few_shot": 5}
    loop = {"max_steps": None, "epochs": 0.2, "eval_every_steps": None, "eval_every_epochs": 0.1}
    result = train(with_settings(config, tmp_path / "few", data=few, loop=loop), tiny_data)
    assert result.progress.step == 1
    assert length_of(tmp_path / "few") == {"max_steps": 1, "eval_every_steps": 1, "steps_per_epoch": 1}


def test_epochs_that_were_other_steps_are_not_gone_on_with(config, tiny_data, tmp_path):
    config = with_settings(config, tmp_path / "run", loop={"max_steps": None, "epochs": 1})
    with pytest.raises(KilledError):
        train(config, tiny_data, callbacks=[KillAt(3)])
    record = json.loads((config.run_dir / "run.json").read_text())
    record["length"]["max_steps"] = 8
    (config.run_dir / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"other steps than when it was started \(max_steps was 8, is 7\)"):
        train(config, tiny_data, resume=True)


def test_a_warm_up_as_long_as_the_run_is_said(config, tiny_data, tmp_path, caplog):
    train(with_settings(config, tmp_path / "run", optim={"warmup_steps": 6}), tiny_data)
    assert "optim.warmup_steps: 6 of 6 steps: the rates end before they reach their peak" in caplog.text


def test_labels_are_smoothed_in_training_and_not_in_the_validation_loss(config, tiny_data, tmp_path):
    still = {"schedule": "constant", "warmup_steps": 0, "warmup": "transformers", "projection_lr": 1e-30}
    config = with_settings(config, config.run_dir, optim=still, model={"dropout_rate": 0.0})
    config = replace(config, tuner=replace(config.tuner, lr=1e-30, lowrank_lr=1e-30))
    smoothed = with_settings(config, tmp_path / "smoothed", optim={"label_smoothing": 0.4})
    train(config, tiny_data)
    train(smoothed, tiny_data)
    assert val_losses(smoothed.run_dir) == val_losses(config.run_dir)
    assert all(
        abs(one - other) > 1e-3 for one, other in zip(losses(smoothed.run_dir), losses(config.run_dir), strict=True)
    )


def test_a_run_leaves_config_adapter_metrics_and_checkpoints(config, tiny_data):
    result = train(config, tiny_data)
    run_dir = config.run_dir
    assert (run_dir / "config.yaml").read_text() == dump_config(config)
    assert json.loads((run_dir / "run.json").read_text())["versions"]["torch"]
    assert len(losses(run_dir)) == 6
    assert [path.name for path in list_states(run_dir / "checkpoints")] == ["step-00000004", "step-00000006"]
    assert list((run_dir / "tensorboard").iterdir())
    assert result.progress.step == 6
    assert result.progress.best_metric is not None
    assert set(adapter(run_dir)) == set(final_weights(run_dir))


def test_same_seed_same_bits_and_another_seed_others(config, tiny_data, tmp_path):
    train(config, tiny_data)
    train(with_settings(config, tmp_path / "again"), tiny_data)
    assert_same(final_weights(config.run_dir), final_weights(tmp_path / "again"))
    train(replace(config, output_dir=str(tmp_path / "other"), seed=1), tiny_data)
    other = final_weights(tmp_path / "other")
    assert any(not torch.equal(other[k], v) for k, v in final_weights(config.run_dir).items())


@pytest.mark.parametrize("killed_at", [1, 3, 5])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_resumed_run_equals_unbroken_run(config, tiny_data, tmp_path, killed_at, accumulation_steps):
    config = with_settings(config, tmp_path / "run", loop={"accumulation_steps": accumulation_steps})
    unbroken = with_settings(config, tmp_path / "unbroken")
    train(unbroken, tiny_data)

    class Kill(Callback):
        def on_step(self, config, step):
            if step == killed_at:
                raise KilledError

    with pytest.raises(KilledError):
        train(config, tiny_data, callbacks=[Kill()])
    resumed = train(config, tiny_data, resume=True)
    assert resumed.progress.step == 6
    assert_same(final_weights(config.run_dir), final_weights(unbroken.run_dir))
    assert_same(adapter(config.run_dir), adapter(unbroken.run_dir))
    assert losses(config.run_dir) == losses(unbroken.run_dir)


def test_loader_workers_change_nothing(config, tiny_data, tmp_path):
    train(config, tiny_data)
    train(with_settings(config, tmp_path / "workers", data={"num_workers": 2}), tiny_data)
    assert_same(final_weights(config.run_dir), final_weights(tmp_path / "workers"))


@pytest.mark.parametrize(
    "changed",
    [{"data": {"padding": "max_length"}}, {"loop": {"accumulation_steps": 4}}],
    ids=["padding", "accumulation"],
)
def test_padding_and_accumulation_leave_training_as_it_is(config, tiny_data, tmp_path, changed):
    config = with_settings(config, tmp_path / "run", model={"dropout_rate": 0.0})
    train(config, tiny_data)
    train(with_settings(config, tmp_path / "changed", **changed), tiny_data)
    torch.testing.assert_close(losses(tmp_path / "changed"), losses(config.run_dir), atol=1e-4, rtol=1e-4)


def test_frozen_weights_are_bit_equal_and_every_group_moves(config, tiny_data):
    trainer = Trainer(config, tiny_data)
    frozen = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in trainer.trainable.items()}
    trainer.fit()
    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, frozen[name]), name
    assert all(not torch.equal(before[name], parameter) for name, parameter in trainer.trainable.items())


def test_loss_weighting_by_score_changes_the_loss(config, tiny_data, tmp_path):
    train(config, tiny_data)
    train(with_settings(config, tmp_path / "weighted", data={"loss_weighting": "score"}), tiny_data)
    assert losses(tmp_path / "weighted")[0] < losses(config.run_dir)[0]


@pytest.fixture
def answers_data(tmp_path) -> Path:
    """SQuAD with made-up rows, prepared: 8 / 4 questions whose answers have one to three words."""
    folder = task_folder(tmp_path / "data", get_task("squad").under("fixed"))
    folder.mkdir(parents=True)
    schema = manifest_schema(images=False, text_columns=("question", "context"))
    for split, size in (("train", 8), ("val", 4)):
        rows = []
        for row in range(size):
            answer = ["red", "big red", "small blue ball"][row % 3]
            texts = {"question": "what is left ?", "context": f"the {answer} is left", "targets": [answer]}
            rows.append({"example_id": row, "target_weights": [1.0], "references": [answer], **texts})
        write_split(folder, SplitInfo("squad", split, protocol="fixed"), schema, rows)
    return tmp_path / "data"


@pytest.mark.parametrize("loss_mean", ["examples", "tokens"])
@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_the_loss_of_a_step_is_the_mean_asked_for(config, answers_data, tmp_path, loss_mean, accumulation_steps):
    """``tokens`` is what transformers' own model returns for the whole batch, whatever the passes it is cut into."""
    data = {"batch_size": 8, "loss_mean": loss_mean, "protocol": "fixed"}
    loop = {"accumulation_steps": accumulation_steps, "max_steps": 1}
    config = replace(config, task="squad")
    config = with_settings(config, tmp_path / "run", data=data, loop=loop, model={"dropout_rate": 0.0})
    trainer = Trainer(config, answers_data)
    batch = trainer.train_set.batch(BatchRequest(0, tuple(range(8)), True, 8))
    texts = trainer.model.joint_input(batch.input_ids, batch.attention_mask)
    own = trainer.model.backbone.model(
        inputs_embeds=texts.inputs_embeds, attention_mask=texts.attention_mask, labels=batch.labels
    )
    each = trainer.model(batch.input_ids, batch.attention_mask, batch.labels).loss_per_example.mean().item()
    assert own.loss.item() != pytest.approx(each, rel=1e-3)
    trainer.fit()
    expected = own.loss.item() if loss_mean == "tokens" else each
    assert losses(tmp_path / "run") == [pytest.approx(expected, rel=1e-5)]


def test_zero_features_train_the_same_parameters_on_nothing_seen(config, tiny_data, tmp_path):
    zero = with_settings(config, tmp_path / "zero", data={"visual_features": "zero"})
    seeing, blind = train(config, tiny_data), train(zero, tiny_data)
    assert blind.budget == seeing.budget
    assert losses(tmp_path / "zero") != losses(config.run_dir)


def test_early_stop_ends_after_evaluations_without_a_better_one(config, tiny_data, monkeypatch):
    values = iter([50.0, 40.0, 40.0, 40.0, 40.0, 40.0])
    monkeypatch.setitem(EVALUATORS, "vqa-accuracy", Evaluator(lambda _: {"vqa_accuracy": next(values)}, SCORES))
    config = with_settings(config, config.run_dir, loop={"eval_every_steps": 1, "early_stop_evals": 2})
    result = train(config, tiny_data)
    assert result.progress.step == 3
    assert (result.progress.best_step, result.progress.best_metric) == (1, 50.0)


def test_the_best_adapter_is_kept_not_the_last(config, tiny_data, monkeypatch):
    values = iter([50.0, 60.0, 10.0, 10.0, 10.0, 10.0])
    monkeypatch.setitem(EVALUATORS, "vqa-accuracy", Evaluator(lambda _: {"vqa_accuracy": next(values)}, SCORES))
    config = with_settings(
        config, config.run_dir, loop={"eval_every_steps": 1, "save_every_steps": 1, "keep_checkpoints": 6}
    )
    train(config, tiny_data)
    assert_same(adapter(config.run_dir), adapter_at(config.run_dir, 2))


def test_a_taken_folder_is_refused_and_left_as_it_is(config, tiny_data):
    config.run_dir.mkdir(parents=True)
    (config.run_dir / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is not empty and holds no run; choose another"):
            train(config, tiny_data, overwrite=overwrite)
    assert [path.name for path in config.run_dir.iterdir()] == ["notes.txt"]


def test_a_full_disk_at_the_start_leaves_no_run_folder(config, tiny_data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dept_vl.runs.folder.write_text", full)
    with pytest.raises(ConfigError, match=r"cannot write to .*run: No space left on device"):
        train(config, tiny_data)
    assert not config.run_dir.exists()


def test_overwrite_replaces_an_earlier_run(config, tiny_data):
    train(config, tiny_data)
    train(with_settings(config, config.run_dir, loop={"max_steps": 2}), tiny_data, overwrite=True)
    assert len(losses(config.run_dir)) == 2


def test_resume_with_other_settings_names_them(config, tiny_data):
    train(config, tiny_data)
    other = with_settings(config, config.run_dir, tuner={"lr": 0.1})
    with pytest.raises(ConfigError, match=r"tuner\.lr: the run has '0\.4x', asked for 0\.1"):
        train(other, tiny_data, resume=True)


def test_a_batch_that_cannot_be_shared_out_is_refused(config, tiny_data):
    with pytest.raises(ConfigError, match=r"data\.batch_size: 8 must divide by .* 1 x 3"):
        train(with_settings(config, config.run_dir, loop={"accumulation_steps": 3}), tiny_data)
    assert not config.run_dir.exists()


def test_more_parts_than_rows_are_refused(config, tiny_data):
    changed = {"data": {"batch_size": 128}, "loop": {"accumulation_steps": 64}}
    with pytest.raises(ConfigError, match="a split of 60 rows cannot be cut into 64 parts"):
        train(with_settings(config, config.run_dir, **changed), tiny_data)
    assert not config.run_dir.exists()


def test_a_split_smaller_than_a_batch_is_trained_whole(config, tiny_data):
    train(with_settings(config, config.run_dir, data={"batch_size": 128}), tiny_data)
    assert len(losses(config.run_dir)) == 6


def test_long_texts_are_counted_or_refused(config, tiny_data, tmp_path, caplog):
    config = with_settings(config, tmp_path / "run", data={"max_source_length": 8}, tuner={"allow_nearest": True})
    train(config, tiny_data)
    assert "of 60 source texts have more than data.max_source_length=8 tokens; they are truncated" in caplog.text
    refusing = with_settings(config, tmp_path / "refusing", data={"max_source_length": 8, "on_long": "error"})
    with pytest.raises(DataError, match=r"of 60 source texts .* raise the length, or set data\.on_long=truncate"):
        train(refusing, tiny_data)
    assert not refusing.run_dir.exists()


def test_features_of_another_encoder_are_refused(config, tiny_data):
    other = replace(config.model.image_encoder, preprocessing="clip")
    with pytest.raises(DataError, match="preprocessing is 'resize', wanted 'clip'"):
        train(with_settings(config, config.run_dir, model={"image_encoder": other}), tiny_data)
    assert not config.run_dir.exists()


def settings_file(config, data_dir) -> str:
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump_config(replace(config, data=replace(config.data, dir=str(data_dir)))))
    return str(path)


def train_in_two_processes(config, data_dir, **environment):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
        "-m", "dept_vl", "train", "--config", settings_file(config, data_dir),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("loss_mean", ["examples", pytest.param("tokens", marks=pytest.mark.distributed)])
def test_two_processes_train_as_one(config, tiny_data, tmp_path, fresh_process, loss_mean):
    """The same global batches, so the same weights up to the order of float additions; every val row counted once.

    Two processes add their halves of a gradient as one process adds two accumulated passes over the same rows: then
    nothing is left to differ. A single pass over the batch adds in another order.
    """
    config = with_settings(config, tmp_path / "one", model={"dropout_rate": 0.0}, data={"loss_mean": loss_mean})
    halves = with_settings(config, tmp_path / "halves", loop={"accumulation_steps": 2})
    train(config, tiny_data)
    train(halves, tiny_data)
    settings = settings_file(with_settings(config, tmp_path / "two"), tiny_data)
    assert fresh_process.run_launch(main, ["train", "--config", settings]) == [0, 0], fresh_process.printed()
    one, half, two = (final_weights(tmp_path / name) for name in ("one", "halves", "two"))
    for name in one:
        torch.testing.assert_close(two[name], half[name], atol=1e-6, rtol=0)
        torch.testing.assert_close(two[name], one[name], atol=5e-6, rtol=0)
    for name, tolerance in (("halves", 1e-6), ("one", 1e-5)):
        torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / name), atol=tolerance, rtol=tolerance)


@pytest.mark.distributed
def test_a_backbone_sharded_as_accelerates_configuration_says_trains_to_the_same_weights(config, tiny_data, tmp_path):
    """The launcher's variables are accelerate's own; it would itself start two processes only on GPUs."""
    config = with_settings(config, tmp_path / "whole")
    train_in_two_processes(config, tiny_data)
    shipped = Path(__file__).parents[2] / "configs" / "accelerate" / "fsdp.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(shipped), "-m", "dept_vl"])
    environment = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    fsdp = {key: value for key, value in environment.items() if key.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))}
    assert fsdp["ACCELERATE_USE_FSDP"] == "true"
    train_in_two_processes(with_settings(config, tmp_path / "sharded"), tiny_data, **fsdp)
    assert_same(final_weights(tmp_path / "sharded"), final_weights(tmp_path / "whole"))
    assert losses(tmp_path / "sharded") == losses(tmp_path / "whole")


def test_a_named_feature_store_of_another_encoder_is_refused(config, tiny_data):
    other = replace(config.model.image_encoder, pooled_grid=3)
    store = str(tiny_data / "features" / "random")
    with pytest.raises(DataError, match=r"data\.feature_dir: .* pooled_grid is 6, wanted 3"):
        train(
            with_settings(config, config.run_dir, model={"image_encoder": other}, data={"feature_dir": store}),
            tiny_data,
        )


def test_a_caller_that_prunes_leaves_a_run_that_can_go_on(config, tiny_data, tmp_path):
    unbroken = with_settings(config, tmp_path / "unbroken")
    train(unbroken, tiny_data)
    seen = []

    class Prune(Callback):
        def on_evaluation(self, config, step, metrics):
            seen.append((config.run_dir, step, "vqa_accuracy" in metrics))
            raise PrunedError

    with pytest.raises(PrunedError):
        train(config, tiny_data, callbacks=[Prune()])
    assert seen == [(config.run_dir, 3, True)]
    assert not (config.run_dir / SUMMARY_FILE).exists()
    assert not [path.name for path in config.run_dir.rglob(".*")]
    train(config, tiny_data, resume=True)
    assert_same(adapter(config.run_dir), adapter(unbroken.run_dir))


def test_a_finished_run_says_what_it_reached(config, tiny_data):
    result = train(config, tiny_data)
    summary = json.loads((config.run_dir / SUMMARY_FILE).read_text())
    assert summary["metric"] == "vqa_accuracy"
    assert summary["best_metric"] == result.progress.best_metric
    assert summary["step"] == 6


def test_few_shot_rows_are_recorded_and_alone_are_trained_on(config, tiny_data, tmp_path):
    config = with_settings(config, tmp_path / "run", data={"few_shot": 8, "batch_size": 4})
    train(config, tiny_data)
    record = json.loads((config.run_dir / FEW_SHOT_FILE).read_text())
    assert (record["k"], record["rule"], record["seed"]) == (8, "balanced", 0)
    ids = open_split(tiny_data, get_task("vqa"), "train")["example_id"][:]
    assert record["example_ids"] == [ids[row] for row in record["rows"]]
    trainer = Trainer(with_settings(config, tmp_path / "b"), tiny_data)
    steps = read_steps(
        trainer.train_set, trainer.config.data, trainer.config.loop, trainer.accelerator, seed=0, first_step=0
    )
    seen = {index for parts in steps for request, _ in parts for index in request.indices}
    assert seen == set(record["rows"])


def test_more_few_shot_rows_than_there_are_leave_no_folder(config, tiny_data, tmp_path):
    config = with_settings(config, tmp_path / "run", data={"few_shot": 61})
    with pytest.raises(ConfigError, match="61 is more than the 60 rows there are in task 'vqa'"):
        train(config, tiny_data)
    assert not config.run_dir.exists()


def test_a_run_starts_from_another_and_says_so(config, tiny_data, tmp_path):
    train(config, tiny_data)
    sections = {"init": {"source": str(config.run_dir)}, "loop": {"max_steps": 1}, "tuner": {"lr": 1e-9}}
    second = with_settings(config, tmp_path / "second", **sections)
    train(second, tiny_data)
    start, end = adapter(config.run_dir)["tuner.soft_prompt"], adapter(second.run_dir)["tuner.soft_prompt"]
    torch.testing.assert_close(start, end, rtol=0, atol=1e-5)
    assert load_config(second.run_dir / "config.yaml") == second
    assert json.loads((second.run_dir / "run.json").read_text())["init"]["source_task"] == "vqa"


def test_resume_needs_no_source_once_there_is_a_checkpoint(config, tiny_data, tmp_path):
    train(config, tiny_data)
    unbroken = with_settings(config, tmp_path / "unbroken", init={"source": str(config.run_dir)})
    train(unbroken, tiny_data)
    broken = with_settings(unbroken, tmp_path / "broken")
    train(broken, tiny_data)
    shutil.rmtree(list_states(broken.run_dir / "checkpoints")[-1])
    config.run_dir.rename(tmp_path / "moved")
    train(broken, tiny_data, resume=True)
    assert_same(final_weights(unbroken.run_dir), final_weights(broken.run_dir))


def test_a_run_does_not_start_from_the_folder_it_replaces(config, tiny_data):
    train(config, tiny_data)
    again = with_settings(config, config.run_dir, init={"source": str(config.run_dir)})
    with pytest.raises(ConfigError, match=r"init\.from: .* this run's own folder"):
        train(again, tiny_data, overwrite=True)
    assert (config.run_dir / WEIGHTS_FILE).is_file()


def test_a_run_says_how_large_its_prompt_and_update_are_and_that_one_is_inert(config, tiny_data, tmp_path, caplog):
    config = with_settings(config, tmp_path / "run", tuner={"lowrank_lr": 1e-5})
    train(config, tiny_data)
    sizes = [record for record in map(json.loads, (config.run_dir / "metrics.jsonl").open()) if "rms/update" in record]
    assert sizes
    assert all(0 < one["rms/update"] < 0.01 * one["rms/embeddings"] < one["rms/prompt"] for one in sizes)
    assert all(one["rms_share/update"] == one["rms/update"] / one["rms/embeddings"] for one in sizes)
    assert "does next to nothing" in caplog.text
    caplog.clear()
    train(with_settings(config, tmp_path / "larger", tuner={"lowrank_lr": 0.3}), tiny_data)
    assert "does next to nothing" not in caplog.text


def test_what_a_run_held_is_freed_with_it(config, tiny_data):
    gc.collect()
    gc.disable()  # sweeps and seeds run one after the other: none is to wait for the collector
    try:
        train(config, tiny_data)
        assert not [held for held in gc.get_objects() if isinstance(held, Trainer | torch.optim.Optimizer)]
    finally:
        gc.enable()
