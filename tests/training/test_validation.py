"""The validation loss: what it is of, against a loop over single rows, and what is picked by it."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dept_vl.data.manifest import SplitInfo, manifest_schema, open_split, write_split
from dept_vl.data.visual import CachedFeatures
from dept_vl.errors import DataError, DivergenceError
from dept_vl.evaluators import EVALUATORS
from dept_vl.evaluators.base import PERCENT, Evaluator
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.open import open_run
from dept_vl.settings.load import dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.processes import leave_launch, process_state
from dept_vl.tasks import get_task
from dept_vl.training.trainer import Trainer, train
from dept_vl.training.validation import Validation
from tests.conftest import tiny_vqa_rows
from tests.models.language.causal_folders import save_tiny_gpt2
from tests.training.states import adapter_at

FALLING = [60.0, 50.0, 40.0, 30.0, 20.0, 10.0]


@pytest.fixture
def config(t5_folder, tmp_path) -> TrainConfig:
    """Six steps on the tiny task with dropout and drawn targets, evaluated after each."""
    return load_config(
        None,
        {
            "output_dir": str(tmp_path / "run"), "model.backbone": str(t5_folder), "data.max_source_length": 16,
            "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8, "loop.max_steps": 6,
            "loop.eval_every_steps": 1, "loop.save_every_steps": 1, "loop.keep_checkpoints": 6, "loop.trackers": [],
        },
    )  # fmt: skip


def elsewhere(config, run_dir, **loop) -> TrainConfig:
    return replace(config, output_dir=str(run_dir), loop=replace(config.loop, **loop))


def val_losses(run_dir) -> list[float]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["val/loss"] for line in lines if "val/loss" in line]


def loss_at_start(config, data_dir) -> float:
    return Validation(config, open_run(config, data_dir, ("train", "val"))).measure(0)["loss"]


def loop_loss(trainer: Trainer, rows) -> float:
    """The mean of the rows' own mean cross-entropies, each row alone, its heaviest target spelled out."""
    model, codec, losses = trainer.model.eval(), trainer.parts.codec, []
    source = trainer.parts.visual["val"].source
    assert isinstance(source, CachedFeatures)
    for row in rows:
        ids = torch.tensor(codec.source_ids([trainer.parts.task.source_text(row)], 16))
        target = row["targets"][row["target_weights"].index(max(row["target_weights"]))]
        (labels,) = codec.target_ids([target], 32)
        features = source.read([row["image_id"]], [row["image"]])["visual_features"]
        with torch.no_grad():
            logits = model(ids, torch.ones_like(ids), torch.tensor([labels]), features).logits[0].double()
        chances = logits.log_softmax(-1)[range(len(labels)), labels]
        losses.append(-chances.mean().item())
    return float(np.mean(losses))


@pytest.fixture
def few_targets(tiny_data, tmp_path):
    """The tiny data with a ``val`` of which every third row has a target, the heaviest last or between equals."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    rows = [{**row, "targets": [], "target_weights": []} for row in tiny_vqa_rows(20, 2)]
    for number in range(0, 20, 3):
        weights = [0.3, 0.9, 0.9] if number % 2 else [0.3, 0.3, 0.9]
        rows[number] |= {"targets": ["yes", "two red", "small blue cube"], "target_weights": weights}
    write_split(data / "vqa", SplitInfo("vqa", "val", str(data)), schema, rows)
    return data


def test_it_is_the_mean_of_the_rows_means_each_alone_and_without_dropout(config, tiny_data):
    trainer = Trainer(config, tiny_data)
    measured = trainer.validation.measure(0)["loss"]
    assert measured == pytest.approx(loop_loss(trainer, open_split(tiny_data, get_task("vqa"), "val")), rel=1e-5)


def test_it_is_a_function_of_the_model_alone(config, tiny_data):
    trainer = Trainer(config, tiny_data)
    trainer.model.train()
    first = trainer.validation.measure(0)
    torch.manual_seed(5)
    assert trainer.validation.measure(7) == first
    assert trainer.model.training


def test_a_batch_is_encoded_once_for_its_answers_and_its_loss(config, tiny_data):
    parts, calls = open_run(config, tiny_data, ("train", "val")), []
    parts.model.backbone.model.encoder.block[0].register_forward_hook(lambda *_: calls.append(1))
    Validation(config, parts).measure(0)
    assert len(calls) == 1


@pytest.mark.parametrize("rows", [None, 7])
def test_rows_without_a_target_and_rows_not_evaluated_do_not_count(config, few_targets, rows):
    trainer = Trainer(elsewhere(config, config.run_dir, eval_rows=rows), few_targets)
    expected = loop_loss(
        trainer, [row for row in open_split(few_targets, get_task("vqa"), "val") if row["targets"]][: rows and 3]
    )
    assert trainer.validation.measure(0)["loss"] == pytest.approx(expected, rel=1e-5)


def test_batches_without_any_target_are_no_trouble(config, few_targets):
    single = replace(config, data=replace(config.data, eval_batch_size=1))
    assert loss_at_start(single, few_targets) == pytest.approx(loss_at_start(config, few_targets), rel=1e-5)


def test_rows_whose_image_was_skipped_do_not_count(config, tiny_data):
    trainer = Trainer(config, tiny_data)
    val = trainer.parts.datasets["val"]
    val.indices = val.indices[5:]
    expected = loop_loss(trainer, list(open_split(tiny_data, get_task("vqa"), "val"))[5:])
    assert trainer.validation.measure(0)["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_decoder_only_backbone_has_it_too(config, few_targets, tmp_path):
    config = replace(config, model=replace(config.model, backbone=str(save_tiny_gpt2(tmp_path / "gpt2"))))
    single = replace(config, data=replace(config.data, eval_batch_size=1))
    assert loss_at_start(single, few_targets) == pytest.approx(loss_at_start(config, few_targets), rel=1e-4)


def test_bf16_is_the_precision_of_it_too(config, tiny_data):
    both = (elsewhere(config, config.run_dir, precision=precision) for precision in ("float32", "bf16"))
    whole, half = (loss_at_start(one, tiny_data) for one in both)
    assert half != whole
    assert half == pytest.approx(whole, rel=0.05)


@pytest.fixture
def no_targets(few_targets):
    """The tiny data with a ``val`` without targets."""
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    rows = [{**row, "targets": [], "target_weights": []} for row in tiny_vqa_rows(20, 2)]
    write_split(few_targets / "vqa", SplitInfo("vqa", "val", str(few_targets)), schema, rows)
    return few_targets


def test_without_a_target_there_is_none_and_it_picks_nothing(config, no_targets, tmp_path):
    train(elsewhere(config, config.run_dir, max_steps=1), no_targets)
    assert "val/vqa_accuracy" in (config.run_dir / "metrics.jsonl").read_text()
    assert val_losses(config.run_dir) == []
    asked = elsewhere(config, tmp_path / "asked", best_metric="loss")
    with pytest.raises(DataError, match=r"loop\.best_metric: the loss is taken of targets, and no row of val"):
        train(asked, no_targets)
    assert not asked.run_dir.exists()


def test_the_best_by_loss_is_another_checkpoint_than_the_best_by_score(config, tiny_data, tmp_path, monkeypatch):
    for name, metric in (("by-score", None), ("by-loss", "loss")):
        values = iter(FALLING)
        fake = Evaluator(lambda _, values=values: {"vqa_accuracy": next(values)}, {"vqa_accuracy": PERCENT})
        monkeypatch.setitem(EVALUATORS, "vqa-accuracy", fake)
        train(elsewhere(config, tmp_path / name, best_metric=metric), tiny_data)
    by_score, by_loss = (
        json.loads((tmp_path / name / "training.json").read_text()) for name in ("by-score", "by-loss")
    )
    losses = val_losses(tmp_path / "by-loss")
    assert val_losses(tmp_path / "by-score") == losses
    best = losses.index(min(losses)) + 1
    assert (by_score["metric"], by_score["best_step"], by_score["best_metric"]) == ("vqa_accuracy", 1, 60.0)
    assert (by_loss["metric"], by_loss["best_step"], by_loss["best_metric"]) == ("loss", best, min(losses))
    assert best > 1
    kept = load_file(tmp_path / "by-loss" / WEIGHTS_FILE)
    at_best = adapter_at(tmp_path / "by-loss", best)
    assert all(torch.equal(kept[name], at_best[name]) for name in at_best)
    assert f"loss {min(losses):.3f} nats a token" in (tmp_path / "by-loss" / "README.md").read_text()


def test_a_falling_loss_does_not_stop_a_run_early(config, tiny_data, monkeypatch):
    values = iter(FALLING)
    fake = Evaluator(lambda _: {"vqa_accuracy": next(values)}, {"vqa_accuracy": PERCENT})
    monkeypatch.setitem(EVALUATORS, "vqa-accuracy", fake)
    result = train(elsewhere(config, config.run_dir, best_metric="loss", early_stop_evals=1), tiny_data)
    losses = val_losses(config.run_dir)
    assert sorted(losses, reverse=True) == losses
    assert result.progress.step == 6


class KilledError(Exception):
    pass


def test_a_resumed_run_picks_by_loss_what_an_unbroken_one_picks(config, tiny_data, tmp_path):
    class Kill(Callback):
        def on_step(self, config, step):
            if step == 4:
                raise KilledError

    unbroken, broken = (elsewhere(config, tmp_path / name, best_metric="loss") for name in ("unbroken", "broken"))
    train(unbroken, tiny_data)
    with pytest.raises(KilledError):
        train(broken, tiny_data, callbacks=[Kill()])
    train(broken, tiny_data, resume=True)
    assert val_losses(broken.run_dir) == val_losses(unbroken.run_dir)
    first, second = (load_file(one.run_dir / WEIGHTS_FILE) for one in (unbroken, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_that_is_not_finite_ends_the_run(config, tiny_data):
    trainer = Trainer(config, tiny_data)
    with torch.no_grad():
        next(iter(trainer.trainable.values())).fill_(math.nan)
    with pytest.raises(DivergenceError, match="after step 3 the loss on val is nan: the model's output is not finite"):
        trainer.validation.measure(3)


def _measure(settings: str, data_dir, out) -> None:
    process_state()  # joins the launch
    loss = loss_at_start(load_config(settings), data_dir)
    (out / str(process_state().process_index)).write_text(json.dumps(loss))
    leave_launch()


@pytest.mark.distributed
@pytest.mark.parametrize("rows", [None, 7, 1])
def test_two_processes_have_the_loss_of_one(config, few_targets, tmp_path, fresh_process, rows):
    """Batches without targets, and a process without rows, among them."""
    config = elsewhere(config, config.run_dir, eval_rows=rows)
    config = replace(config, data=replace(config.data, eval_batch_size=2))
    settings = tmp_path / "settings.yaml"
    settings.write_text(dump_config(config))
    assert fresh_process.run_launch(_measure, settings, few_targets, tmp_path) == [0, 0], fresh_process.printed()
    both = [json.loads((tmp_path / rank).read_text()) for rank in ("0", "1")]
    assert both[0] == both[1] == pytest.approx(loss_at_start(config, few_targets), rel=1e-6)
