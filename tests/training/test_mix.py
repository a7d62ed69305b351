"""One run of several tasks: trained, resumed, selected, in two processes; nothing of a run of one changes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.prepare import prepare
from dept_vl.cli import main
from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
from dept_vl.data.sampler import TrainRequests
from dept_vl.errors import ConfigError, DataError, DivergenceError
from dept_vl.evaluators import EVALUATORS, LOSS, EvaluationInput, score
from dept_vl.inference.answer import Answerer, answer_split
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import FEW_SHOT_FILE
from dept_vl.runs.open import open_run, open_tasks, training_set
from dept_vl.runs.selection import check_best_metric, read_selection
from dept_vl.settings.load import dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import Trainer, train
from dept_vl.training.validation import Validation
from tests.data_prep.text_rows import made_up_rows, write_rows
from tests.models.language.causal_folders import save_tiny_gpt2
from tests.training.states import adapter_at


@pytest.fixture
def config(t5_folder, tmp_path) -> TrainConfig:
    """Six steps of DePT on three text tasks: labels scored for two, answers generated for one."""
    return make(t5_folder, tmp_path / "run", "cola+mnli+squad")


def make(backbone: Path, run_dir: Path, task: str, **settings) -> TrainConfig:
    return load_config(
        None,
        {
            "task": task,
            "output_dir": str(run_dir),
            "model.backbone": str(backbone),
            "tuner.budget_tokens": 20,
            "tuner.num_virtual_tokens": 4,
            "data.max_source_length": 16,
            "data.batch_size": 8,
            "loop.max_steps": 6,
            "loop.eval_every_steps": 3,
            "loop.save_every_steps": 1,
            "loop.log_every_steps": 1,
            **{key.replace("__", "."): value for key, value in settings.items()},
        },
    )


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def final(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(list_states(run_dir / "checkpoints")[-1] / "trainable.safetensors")


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class StopError(Exception):
    pass


class Stop(Callback):
    def on_step(self, config, step):
        if step == 4:
            raise StopError


@pytest.mark.parametrize("batches", ["mixed", "one-task", "shuffled"])
def test_a_killed_run_goes_on_to_the_bit(config, mix_data, tmp_path, batches):
    config = replace(config, mix=replace(config.mix, batches=batches, temperature=3.0))
    unbroken = replace(config, output_dir=str(tmp_path / "unbroken"))
    train(unbroken, mix_data)
    with pytest.raises(StopError):
        train(config, mix_data, callbacks=[Stop()])
    train(config, mix_data, resume=True)
    assert_same(final(config.run_dir), final(unbroken.run_dir))
    assert [line.get("loss") for line in lines(config.run_dir)] == [
        line.get("loss") for line in lines(unbroken.run_dir)
    ]


def test_other_mixing_is_another_run(config, mix_data):
    train(config, mix_data)
    other = replace(config, mix=replace(config.mix, temperature=2.0))
    with pytest.raises(ConfigError, match=r"mix\.temperature: the run has None, asked for 2\.0"):
        train(other, mix_data, resume=True)


@pytest.mark.parametrize("batches", ["mixed", "one-task"])
def test_two_processes_train_as_one(config, mix_data, tmp_path, fresh_process, batches):
    """As one process that adds two passes over the rows of the same steps."""
    mix = replace(config.mix, batches=batches, temperature=2.0)
    config = replace(config, mix=mix, model=replace(config.model, dropout_rate=0.0))
    halves = replace(config, output_dir=str(tmp_path / "halves"), loop=replace(config.loop, accumulation_steps=2))
    train(halves, mix_data)
    two = replace(config, output_dir=str(tmp_path / "two"), data=replace(config.data, dir=str(mix_data)))
    (tmp_path / "two.yaml").write_text(dump_config(two))
    assert fresh_process.run_launch(main, ["train", "--config", str(tmp_path / "two.yaml")]) == [0, 0], (
        fresh_process.printed()
    )
    ours, theirs = final(tmp_path / "two"), final(tmp_path / "halves")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)
    shared = [
        {key: value for key, value in line.items() if key.startswith("val/")}
        for line in lines(tmp_path / "two")
        if "val/mean" in line
    ]
    expected = [line for line in lines(tmp_path / "halves") if "val/mean" in line]
    for one, other in zip(shared, expected, strict=True):
        assert one == pytest.approx({key: other[key] for key in one}, abs=1e-5)


@pytest.mark.parametrize("batches", ["mixed", "one-task"])
def test_the_loss_of_a_step_is_that_of_its_rows_each_as_its_own_task_has_them(config, mix_data, batches):
    """A plain loop: the rows of the step one by one, from each task opened alone."""
    mix = replace(config.mix, batches=batches)
    config = replace(config, mix=mix, model=replace(config.model, dropout_rate=0.0))
    config = replace(config, loop=replace(config.loop, max_steps=1, eval_every_steps=1))
    trainer = Trainer(config, mix_data)
    (request,) = TrainRequests(trainer.train_set.train_batches(8, config.seed, by_length=True), 0, 1)
    own = {name: open_run(config.for_task(name), mix_data, ("train",)).datasets["train"] for name in config.task_names}
    sizes = [len(one) for one in own.values()]
    losses = []
    for row in request.indices:
        task = next(place for place in range(3) if row < sum(sizes[: place + 1]))
        alone = replace(request, indices=(row - sum(sizes[:task]),), global_rows=1)
        batch = list(own.values())[task].batch(alone)
        losses.append(trainer.model(batch.input_ids, batch.attention_mask, batch.labels).loss_per_example.item())
    trainer.fit()
    assert lines(config.run_dir)[0]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_scores_are_those_of_each_task_alone_and_the_mean_is_theirs(config, mix_data):
    result = train(config, mix_data)
    values = {key.removeprefix("val/"): value for key, value in lines(config.run_dir)[-1].items()}
    model = open_tasks(config, mix_data, ("val",), adapter=config.run_dir)
    assert result.metric_name == "mean"
    at_best = next(
        line for line in lines(config.run_dir) if line["step"] == result.progress.best_step and "val/mean" in line
    )
    primary = {"cola": "matthews_correlation", "mnli": "accuracy", "squad": "squad_f1"}
    factors = {"cola": 100, "mnli": 100, "squad": 1}
    shown = []
    for name, parts in model.items():
        answerer = Answerer(parts.model, parts.codec, None, parts.decoding, parts.task_id)
        answers = answer_split(answerer, parts.datasets["val"], batch_size=4)
        inputs = EvaluationInput(answers.predictions, parts.references("val"))
        found = score(parts.task.evaluators, inputs)
        for key, value in found.items():
            assert at_best[f"val/{name}/{key}"] == pytest.approx(value)
        shown.append(found[primary[name]] * factors[name])
    assert at_best["val/mean"] == pytest.approx(sum(shown) / 3)
    assert result.progress.best_metric == at_best["val/mean"]
    assert values["loss"] == pytest.approx(sum(values[f"{name}/loss"] for name in model) / 3)


def test_each_task_answers_its_own_way(config, mix_data):
    tasks = open_tasks(config, mix_data, ("val",))
    assert {name: parts.decoding.method for name, parts in tasks.items()} == {
        "cola": "score", "mnli": "score", "squad": "generate",
    }  # fmt: skip
    assert tasks["cola"].decoding.labels == ("0", "1")
    assert tasks["mnli"].decoding.labels == ("0", "1", "2")
    assert [parts.decoding.max_new_tokens for parts in tasks.values()] == [8, 8, 20]
    assert [parts.task.protocol for parts in tasks.values()] == ["fixed"] * 3
    assert len({id(parts.model) for parts in tasks.values()}) == 1
    assert [parts.task_id for parts in tasks.values()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("best_metric", "metric", "lower"),
    [
        (None, "mean", False),
        ("mean", "mean", False),
        ("loss", "loss", True),
        ("mnli/accuracy", "mnli/accuracy", False),
        ("squad/squad_em", "squad/squad_em", False),
        ("cola/loss", "cola/loss", True),
    ],
)
def test_what_picks_the_best_checkpoint_can_be_named(config, mix_data, best_metric, metric, lower):
    config = replace(config, loop=replace(config.loop, best_metric=best_metric, max_steps=3))
    assert read_selection(config, mix_data).metric == metric
    result = train(config, mix_data)
    (at_end,) = [line for line in lines(config.run_dir) if f"val/{metric}" in line]
    assert result.metric_name == metric
    assert result.progress.best_metric == at_end[f"val/{metric}"]
    assert Trainer(replace(config, output_dir=str(config.run_dir) + "2"), mix_data).selection.lower_is_better == lower


def test_a_named_score_does_not_change_the_mean(config, mix_data):
    config = replace(config, loop=replace(config.loop, max_steps=3))
    named = replace(config, output_dir=f"{config.run_dir}-b", loop=replace(config.loop, best_metric="squad/squad_em"))
    train(config, mix_data)
    train(named, mix_data)
    assert lines(named.run_dir)[-1]["val/mean"] == lines(config.run_dir)[-1]["val/mean"]


@pytest.mark.parametrize("name", ["accuracy", "rte/accuracy", "mnli/", "mean/accuracy"])
def test_a_score_of_no_task_is_refused(config, name):
    with pytest.raises(ConfigError, match=f"loop.best_metric: '{name}' does not say of which task"):
        check_best_metric(replace(config, loop=replace(config.loop, best_metric=name)))


def test_the_best_adapter_is_that_of_the_best_mean(config, mix_data, monkeypatch):
    values = iter([0.5, 0.9, 0.5, 0.2, 0.5, 0.1])  # of CoLA, whose score is another, and MNLI
    declared = EVALUATORS["accuracy"]
    monkeypatch.setitem(EVALUATORS, "accuracy", replace(declared, compute=lambda _: {"accuracy": next(values)}))
    config = replace(config, loop=replace(config.loop, eval_every_steps=2, keep_checkpoints=6))
    result = train(config, mix_data)
    found = [line["val/mean"] for line in lines(config.run_dir) if "val/mean" in line]
    assert result.progress.best_step == 2 * (1 + found.index(max(found)))
    at_best = adapter_at(config.run_dir, result.progress.best_step)
    assert_same(load_file(config.run_dir / "adapter_model.safetensors"), at_best)


def test_images_are_read_by_all_tasks_from_one_store(t5_folder, mix_data, tmp_path):
    config = make(t5_folder, tmp_path / "run", "vqa+coco", mix__batches="one-task")
    result = train(config, mix_data)
    assert result.decode == "generate"
    last = lines(config.run_dir)[-1]
    assert last["val/mean"] == pytest.approx((last["val/vqa/vqa_accuracy"] + 100 * last["val/coco/CIDEr"]) / 2)
    assert "val/vqa/loss" in last
    assert not {"val/coco/loss", "val/loss"} & last.keys()  # captions of val have references and no targets
    saved = read_adapter_config(config.run_dir)
    assert (saved.task, saved.tasks) == ("vqa+coco", ("vqa", "coco"))


def test_a_bad_step_names_its_examples_by_task(config, mix_data):
    """A limit that no gradient keeps."""
    with pytest.raises(DivergenceError, match=r"examples \['(cola|mnli|squad)/\d+', "):
        train(replace(config, loop=replace(config.loop, exploded_norm=1e-12)), mix_data)


def test_few_shot_rows_are_chosen_in_every_task(config, mix_data):
    config = replace(config, data=replace(config.data, few_shot=6), loop=replace(config.loop, max_steps=2))
    train(config, mix_data)
    record = json.loads((config.run_dir / FEW_SHOT_FILE).read_text())
    assert {name: len(one["rows"]) for name, one in record.items()} == {"cola": 6, "mnli": 6, "squad": 6}


def test_explicit_rates_are_taken(config, mix_data, caplog):
    config = replace(config, mix=replace(config.mix, rates={"cola": 1.0, "mnli": 3.0, "squad": 4.0}))
    with caplog.at_level("INFO"):
        dataset = training_set(config, open_tasks(config, mix_data, ("train",)))
    assert "training on cola 12.5 % (24 rows), mnli 37.5 % (40 rows), squad 50.0 % (16 rows)" in caplog.text
    assert dataset.train_batches(8, 0, by_length=False).quotas == [10, 30, 40]


def test_a_task_without_rows_is_refused(config, mix_data, tmp_path):
    shutil.copytree(mix_data, tmp_path / "data")
    schema = manifest_schema(images=False, text_columns=("premise", "hypothesis"))
    write_split(tmp_path / "data" / "mnli.fixed", SplitInfo("mnli", "train", protocol="fixed"), schema, [])
    with pytest.raises(DataError, match=r"mnli\.fixed/train\.parquet: the split is empty"):
        train(config, tmp_path / "data")
    assert not config.run_dir.exists()


def test_a_batch_that_a_small_task_cannot_share_out_is_refused(config, mix_data):
    loop = replace(config.loop, accumulation_steps=32)
    config = replace(
        config, mix=replace(config.mix, batches="one-task"), data=replace(config.data, batch_size=32), loop=loop
    )
    with pytest.raises(ConfigError, match="a split of 16 rows cannot be cut into 32 parts"):
        train(config, mix_data)


def test_a_decoder_only_backbone_reads_one_cue_for_all(mix_data, tmp_path):
    folder = save_tiny_gpt2(tmp_path / "gpt2")
    config = make(folder, tmp_path / "run", "vqa+coco", data__max_target_length=4, loop__max_steps=1)
    with pytest.raises(ConfigError, match=r"data\.answer_cue: .*vqa '\\nAnswer:', coco '\\nCaption:'"):
        train(config, mix_data)
    train(replace(config, data=replace(config.data, answer_cue=" :")), mix_data)
    released = replace(config, output_dir=str(tmp_path / "released"))
    train(replace(released, data=replace(config.data, answer_form="released")), mix_data)
    train(make(folder, tmp_path / "text", "cola+mnli", data__max_target_length=4, loop__max_steps=1), mix_data)


def test_a_task_of_a_mix_validates_as_alone(config, mix_data):
    """`Validation` of one task of the mix, with the settings as they are for it."""
    tasks = open_tasks(config, mix_data, ("train", "val"))
    found = Validation(config.for_task("squad"), tasks["squad"]).measure(0)
    assert LOSS in found
    assert "squad_f1" in found


GLUE = "rte+sst2+mrpc+stsb+qqp+mnli+qnli+cola"


@pytest.mark.parametrize("batches", ["mixed", "one-task", "shuffled"])
def test_the_eight_tasks_of_glue_are_trained_and_scored_together(tmp_path, batches):
    """Labels of two, three and twenty-six classes, a correlation among the scores, real templates."""
    for name in GLUE.split("+"):
        own = 1_000 if name in ("sst2", "qqp", "qnli") else 0  # rows of the training split that validate
        splits = {"train": own + 20, "validation": 12, "validation_matched": 12, "validation_mismatched": 12}
        for split, count in splits.items():
            write_rows(tmp_path / "raw" / name / f"{split}.jsonl", made_up_rows(name, count))
        prepare(get_task(name), tmp_path / "raw" / name, tmp_path / "data", subset=True)
    options = {"mix__batches": batches, "mix__temperature": 10.0, "data__max_source_length": 24, "loop__eval_rows": 6}
    config = make(Path("demo"), tmp_path / "run", GLUE, **options, tuner__allow_nearest=True)
    result = train(config, tmp_path / "data")
    assert result.decode == "score"
    scores = evaluate_run(config, tmp_path / "data", config.run_dir)
    metrics = [
        "accuracy",
        "accuracy",
        "accuracy",
        "pearson",
        "accuracy",
        "accuracy",
        "accuracy",
        "matthews_correlation",
    ]
    shown = [100 * one.metrics[metric] for one, metric in zip(scores.by_task.values(), metrics, strict=True)]
    assert scores.metrics["mean"] == pytest.approx(sum(shown) / 8)
    assert all(one.metrics["invalid"] == 0 for one in scores.by_task.values())
