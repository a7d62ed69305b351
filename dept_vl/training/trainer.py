"""Trains a tuner: one loop, every random choice a function of (seed, step)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dept_vl.data.collator import Batch
from dept_vl.data.sampler import BatchRequest, whole_batches
from dept_vl.errors import ConfigError
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.magnitudes import embedding_size, input_magnitudes
from dept_vl.models.shares import describe_shares, embedding_shares, warning_about
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.folder import (
    CHECKPOINTS,
    FEW_SHOT_FILE,
    SUMMARY_FILE,
    in_answer_form,
    open_run_folder,
    trim_metrics,
)
from dept_vl.runs.hub import find_run
from dept_vl.runs.log import RunLog
from dept_vl.runs.open import open_tasks, training_set
from dept_vl.runs.session import Session
from dept_vl.runs.sources import check_same_model, check_same_sources, sources_record
from dept_vl.runs.trackers import TENSORBOARD, Tracker, chosen_trackers
from dept_vl.settings.schema import TrainConfig
from dept_vl.system import signals
from dept_vl.system.atomic import write_json
from dept_vl.system.locks import OwnedLock, folder_lock
from dept_vl.system.processes import agree_on_largest, all_reduce_gradients, process_state
from dept_vl.system.progress import Meter
from dept_vl.training.batches import Timed, check_batch_size, example_names, loss_terms, read_steps
from dept_vl.training.calibration import calibrate, check_calibration
from dept_vl.training.checkpoints import Progress, list_states, load_state, save_state, state_folder
from dept_vl.training.length import RunLength
from dept_vl.training.optim import averaged, build_optimizer, schedule_factor, set_learning_rates
from dept_vl.training.result import TrainResult
from dept_vl.training.step_guard import StepGuard
from dept_vl.training.validation import MixValidation, Validation

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    data_dir: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    session: Session | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Trains on the ``train`` split, evaluating on ``val``; keeps the adapter that `choose_selection` finds best.

    Args:
        config: The resolved settings.
        data_dir: Prepared data (and, unless the image encoder runs on the fly, a feature store).
        resume: Go on from the newest checkpoint in the run folder; the result is that of an unbroken run.
        overwrite: Replace an earlier run in that folder.
        session: Frozen models and data shared with other runs of this process; the result is the same to the bit.
        callbacks: Told of what happens, after ``loop.trackers`` and those of the session.

    Raises:
        ConfigError, DataError, CheckpointError: Before anything is written, wherever that can be known; another
            process is at work in the run folder.
        DivergenceError: A step's loss or gradient is not finite or exploded; nothing of it is saved.
        StoppedError: The command line listens for signals and got one; a checkpoint is written.
    """
    lock = folder_lock(config.run_dir, f"output_dir: {config.run_dir}")
    if process_state().is_main_process:
        lock.refuse_if_taken()  # before the models are loaded
    try:
        trainer = Trainer(
            config, data_dir, resume=resume, overwrite=overwrite, session=session, callbacks=callbacks, lock=lock
        )
        return trainer.fit()
    finally:
        lock.release()


class Trainer:
    """One run, opened: `fit` runs the steps that are left.

    Attributes:
        config: The run's settings, its length in steps whatever they give it in.
        max_steps: Optimiser steps in all.
        eval_every_steps: Optimiser steps between evaluations.
        tasks: What it works with, by task.
        parts: That of the first task: model, codec and device are the same for all.
        trainable: The tensors it trains, by name.
        progress: Its counters.
        checks_each_step: Whether each step is looked at before its update; else those since the last look, together.
    """

    def __init__(
        self,
        config: TrainConfig,
        data_dir: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        session: Session | None = None,
        callbacks: Sequence[Callback] = (),
        lock: OwnedLock | None = None,
    ) -> None:
        """Opens everything but the run folder, whose `lock` is taken by `fit`; the rest is as `train` has it."""
        session = session or Session()
        self._asked = config
        self._sources = sources_record(config, data_dir)
        if resume:
            check_same_sources(config.run_dir, self._sources)
        has_state = resume and bool(list_states(config.run_dir / CHECKPOINTS))
        self.tasks = open_tasks(
            in_answer_form(config, resume=resume), data_dir, ("train", "val"), session, is_resumed=has_state
        )
        self.parts = next(iter(self.tasks.values()))
        self.model = self.parts.model
        is_on_cpu = self.parts.device.type == "cpu"
        precision = "bf16" if config.loop.precision == "bf16" else "no"
        self.accelerator = Accelerator(mixed_precision=precision, cpu=is_on_cpu)
        self.visual = next((one.visual["train"] for one in self.tasks.values() if one.visual), None)
        self.train_set = training_set(config, self.tasks)
        check_batch_size(config.data, config.loop, self.train_set.fewest_rows, self.accelerator.num_processes)
        steps_per_epoch = whole_batches(len(self.train_set.indices), config.data.batch_size)
        length = RunLength.of(config, steps_per_epoch, resume=resume)
        self.max_steps, self.eval_every_steps = length.max_steps, length.eval_every_steps
        self.config, self._length = replace(config, loop=length.loop), length.record
        self.validation = MixValidation(config, self.tasks) if config.is_mix else Validation(config, self.parts)
        self.selection = self.validation.selection
        groups = self.model.param_groups()
        self.optimizer = build_optimizer(self.model, groups, config.optim, lambda: embedding_size(self.model.backbone))
        self.guard = StepGuard(groups, config.loop)
        self.trackers = chosen_trackers(config.loop.trackers)
        services = [Tracker(name) for name in self.trackers if name != TENSORBOARD]
        self.callbacks = (*services, *session.callbacks, *callbacks)
        self.checks_each_step = is_on_cpu or config.loop.on_nan == "skip"
        self.trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.progress = Progress()
        self.run_dir = config.run_dir
        self.log: RunLog | None = None
        # Values of a checkpoint or another run: then no first ones are left to be measured on the training data.
        start = {} if has_state else self._warm_start()
        self._has_values = bool(start) or has_state
        if not self._has_values:
            check_calibration(self.model)
        self._opening = (start, lock, resume, overwrite)  # no bound method: a cycle would keep the moments

    @property
    def _is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _warm_start(self) -> dict[str, Any]:
        """Starts from a trained adapter if the settings name one.

        Returns:
            What ``run.json`` says of it.
        """
        config = self.config
        if config.init.source is None:
            return {}
        source = find_run(config.init.source)
        if source.resolve() == config.run_dir.resolve():
            raise ConfigError(f"init.from: {source} is this run's own folder; choose another --output-dir")
        return {"init": warm_start(self.model, source, config.init.parts)}

    def _open_run_dir(self, record: dict[str, Any], lock: OwnedLock | None, resume: bool, overwrite: bool) -> None:
        if self._is_main:
            if lock is not None:
                lock.path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire()
            if self.model.answer_form is not None:
                record = {**record, "answer_form": self.model.answer_form}
            record = {**record, **self._sources, **self._length}
            folder = open_run_folder(self._asked, resume=resume, overwrite=overwrite, record=record)
            if self.train_set.few_shot is not None:
                write_json(folder / FEW_SHOT_FILE, self.train_set.describe_few_shot())
        self.accelerator.wait_for_everyone()
        signals.mark_resumable()
        self._resume()

    def _resume(self) -> None:
        states = list_states(self.run_dir / CHECKPOINTS)
        if states:
            check_same_model(self.run_dir, self.model)
            take = self.model.tuner.load_training_state
            self.progress = load_state(states[-1], self.trainable, self.optimizer, take)
            logger.info("resuming from %s", states[-1])
        elif not self._has_values:
            calibrate(self.model, self.train_set, seed=self.config.seed, device=self.parts.device)
        if self._is_main:
            trim_metrics(self.run_dir, self.progress.step, is_evaluation_due=self.progress.is_evaluation_due)

    def fit(self) -> TrainResult:
        """Opens the run's folder, runs the steps that are left, and writes what came of them."""
        with ExitStack() as ending:
            for callback in self.callbacks:
                callback.on_start(self.config, self.run_dir)
                ending.callback(callback.on_end, self.config, self.run_dir)
            self.accelerator.wait_for_everyone()  # every process may refuse before the folder is made
            self._open_run_dir(*self._opening)
            step, steps = self.progress.step, self.max_steps
            if self._is_main:
                self.log = RunLog(self.run_dir, step, has_board=TENSORBOARD in self.trackers)
                ending.callback(self.log.close)
            self.meter = Meter(
                steps, f"train {self.config.task}", "steps", initial=step, is_shown=self._is_main, has_notes=True
            )
            with signals.deferring(), self.meter:
                self._run()
            result = TrainResult(
                self.config.task, self.run_dir, self.selection.metric, self.progress, self.model.parameter_budget(),
                " and ".join(sorted({parts.decoding.method for parts in self.tasks.values()})),
            )  # fmt: skip
            if self._is_main:
                write_json(self.run_dir / SUMMARY_FILE, {"metric": result.metric_name, **asdict(self.progress)})
            self.accelerator.wait_for_everyone()
        if signal := signals.requested():
            raise signals.StoppedError(signal, f"the run had ended: {self.run_dir}")
        return result

    def _run(self) -> None:
        loop = self.config.loop
        started, first_step = time.perf_counter(), self.progress.step
        seconds_before = self.progress.train_seconds
        losses: list[Tensor] = []
        if self.progress.is_evaluation_due:
            self._evaluate_or_stop()
        data, seed = self.config.data, self.config.seed
        steps = Timed(read_steps(self.train_set, data, loop, self.accelerator, seed=seed, first_step=first_step))
        for step, parts in enumerate(steps, start=first_step):
            if self._is_stopped_early():
                logger.info(
                    "no better %s in %d evaluations: stopping",
                    self.selection.metric,
                    self.progress.evals_since_best,
                )
                break
            for callback in self.callbacks:
                callback.on_step(self.config, step)
            loss = self.train_step(step, parts)
            losses += [] if loss is None else [loss]
            seconds = time.perf_counter() - started
            self.progress = replace(self.progress, step=step + 1, train_seconds=seconds_before + seconds)
            done, is_last = self.progress.step, self.progress.step == self.max_steps
            self.meter.add()
            (signal,) = agree_on_largest([signals.requested() or 0])
            every = (loop.log_every_steps, self.eval_every_steps, loop.save_every_steps)
            due = {n for n in every if done % n == 0}
            if due or is_last or signal:  # checked before every checkpoint: nothing that is not a number gets into one
                self._judge_steps()
                self.guard.refuse_bad_weights(self.progress.step)
                samples_per_s = (done - first_step) * self.config.data.batch_size / seconds
                self._log_losses(losses, samples_per_s, steps.waited_s / seconds)
                losses = []
            is_evaluation_due = self.eval_every_steps in due or is_last
            if signal:
                self._stop(signal, is_evaluation_due=is_evaluation_due)
            if is_evaluation_due:
                self._evaluate_or_stop()
            if loop.save_every_steps in due or is_last:
                self._save_checkpoint()

    def _evaluate_or_stop(self) -> None:
        """Evaluates; asked to stop meanwhile, leaves the evaluation to the run that goes on."""
        try:
            with averaged(self.optimizer):
                metrics = self._evaluate()
        except signals.StoppedError as stopped:
            self._stop(stopped.number, is_evaluation_due=True)
        self.progress = replace(self.progress, is_evaluation_due=False)
        self.accelerator.wait_for_everyone()  # all are told once the main process has written
        for callback in self.callbacks:
            callback.on_evaluation(self.config, self.progress.step, metrics)

    def _stop(self, signal: int, *, is_evaluation_due: bool) -> NoReturn:
        """Writes a checkpoint, unless it is there, and ends the run."""
        self.progress = replace(self.progress, is_evaluation_due=is_evaluation_due)
        step = self.progress.step
        if not any(path.name.endswith(f"{step:08d}") for path in list_states(self.run_dir / CHECKPOINTS)):
            self._save_checkpoint()
        raise signals.StoppedError(signal, f"a checkpoint was written after step {step:,}")

    def _is_stopped_early(self) -> bool:
        patience = self.config.loop.early_stop_evals
        return patience is not None and self.progress.evals_since_best >= patience

    def train_step(self, step: int, parts: list[tuple[BatchRequest, Batch]]) -> Tensor | None:
        """Does one optimiser step, numbered from 0, in the parts that `read_steps` gives.

        Returns:
            This process's share of the step's mean loss, on the device; None for a step that was skipped.
        """
        self.model.train()
        factor = schedule_factor(step, self.max_steps, self.config.optim)
        self.rates = set_learning_rates(self.optimizer, factor)
        total = torch.zeros((), device=self.accelerator.device)
        weights, divisor = loss_terms(parts, self.config.data.loss_mean)
        for part, (_, batch) in enumerate(parts):
            torch.manual_seed(_seed(self.config.seed, step, part, self.accelerator.process_index))
            self._last = batch = batch.to(self.accelerator.device)
            features = self.visual.features(batch) if self.visual else None
            with self.accelerator.autocast():
                output = self.model(
                    batch.input_ids, batch.attention_mask, batch.labels, features, batch.task_ids,
                    label_smoothing=self.config.optim.label_smoothing,
                )  # fmt: skip
            loss = (output.loss_per_example * weights[part].to(total.device)).sum() / divisor
            self.accelerator.backward(loss)
            total += loss.detach()
        all_reduce_gradients(self.trainable.values())
        self.guard.watch(step + 1, example_names(parts, self.config.task_names), total)
        is_bad = self.checks_each_step and self._judge_steps()
        if not is_bad:
            if self.config.optim.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.config.optim.max_grad_norm)
            self.optimizer.step()
            self.model.tuner.after_step(step + 1, self.max_steps)
            self.progress = replace(self.progress, skipped_in_a_row=0)
        self.optimizer.zero_grad(set_to_none=True)
        return None if is_bad else total

    def _judge_steps(self) -> bool:
        """Returns whether a step since the last look was bad, for any process, and is to be skipped."""
        bad = self.guard.find_bad()
        (is_bad,) = agree_on_largest([int(bad is not None)])
        if is_bad:
            self.progress = self.guard.judge(bad, self.progress, self.rates, self.run_dir / CHECKPOINTS)
        return bool(is_bad)

    def _log_losses(self, losses: list[Tensor], samples_per_s: float, data_wait_share: float) -> None:
        """Writes the mean loss since the last line, of the steps that were not skipped."""
        rates = {f"lr/{name}": rate for name, rate in self.rates.items()}
        record = {"samples_per_s": samples_per_s, "data_wait_share": data_wait_share, **rates}
        sizes = input_magnitudes(self.model, self._last.input_ids, self._last.attention_mask, self._last.task_ids)
        shares = embedding_shares(sizes)
        record |= {f"rms/{name}": size for name, size in sizes.items()}
        record |= {f"rms_share/{name}": share for name, share in shares.items()}
        if self.progress.step == self.max_steps and shares:
            self.meter.say(describe_shares(shares))
            if warning := warning_about(shares):
                logger.warning(warning)
        if losses:
            record["loss"] = self.accelerator.reduce(torch.stack(losses).mean(), "sum").item()
        if self.config.loop.on_nan == "skip":
            record["skipped_steps"] = self.progress.skipped_steps
        self._record(record)
        shown = {"loss": f"{record['loss']:.3f}"} if losses else {}
        shown["lr"] = " ".join(f"{name} {rate:.3g}" for name, rate in self.rates.items())
        self.meter.note(**shown, **{"samples/s": f"{samples_per_s:.0f}"})

    def _record(self, values: Mapping[str, float]) -> None:
        """Writes a line of metrics, and hands it to the callbacks."""
        if self.log:
            self.log.record(self.progress.step, values)
        for callback in self.callbacks:
            callback.on_log(self.config, self.progress.step, values)

    def _evaluate(self) -> dict[str, float]:
        """Measures the run on ``val`` and keeps the adapter if it is the best so far."""
        step, best = self.progress.step, self.progress.best_metric
        metrics = self.validation.measure(step)
        value = metrics[self.selection.metric]
        self.meter.say(self.selection.describe(step, value, best, self.progress.best_step))
        if self.selection.is_better(value, best):
            self.progress = replace(self.progress, best_metric=value, best_step=step, evals_since_best=0)
            if self._is_main:
                features = self.visual.fingerprint if self.visual else None
                task = None if self.config.is_mix else self.parts.task
                self.model.save_pretrained(self.run_dir, task=task, features=features, scores=metrics)
        else:
            self.progress = replace(self.progress, evals_since_best=self.progress.evals_since_best + 1)
        self._record({f"val/{name}": number for name, number in metrics.items()})
        return metrics

    def _save_checkpoint(self) -> None:
        folder, keep = self.run_dir / CHECKPOINTS, self.config.loop.keep_checkpoints
        if self._is_main:
            state = self.model.tuner.training_state()
            save_state(folder, self.progress, self.trainable, self.optimizer, keep=keep, tuner=state)
        self.accelerator.wait_for_everyone()
        for callback in self.callbacks:
            callback.on_checkpoint(self.config, self.progress.step, state_folder(folder, self.progress.step))


def _seed(*parts: int) -> int:
    """Returns one 64-bit seed that depends on every part."""
    return int(np.random.SeedSequence(parts).generate_state(1, dtype=np.uint64)[0]) >> 1
