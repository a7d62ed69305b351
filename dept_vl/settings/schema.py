"""The typed settings of a run: every field with its type, range, default and meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.models.config import ModelConfig
from dept_vl.models.demo import DEMO
from dept_vl.settings.mix import MixConfig
from dept_vl.strict import MAX_SEED, MAX_SIZE, STRICT, LocalPath, MayDiffer, Names, Whole
from dept_vl.tasks import Task, get_task
from dept_vl.tasks.base import AnswerForm
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.declared import make_task
from dept_vl.tasks.mixture import JOINED, MEAN
from dept_vl.tuners import DeptConfig, TunerConfig

MAX_STEPS = 10**9

STEPS_OR_EPOCHS = (("max_steps", "epochs"), ("eval_every_steps", "eval_every_epochs"))
"""Settings of ``loop`` that say one thing in two ways, so that one of them is null."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Where prepared data lie and how rows become batches."""

    dir: Annotated[
        str | None,
        LocalPath(words=(DEMO,)),
        Field(description="folder that `dept-vl prepare` wrote, or 'demo' for the embedded scenes"),
    ] = None
    rows: Annotated[
        str | None,
        LocalPath(or_name=True),
        Field(description="rows of a task of your own: a file, a folder or a hub id; prepared into the cache"),
    ] = None
    protocol: Annotated[
        Literal["fixed", "paper"] | None,
        Field(description="text tasks: 'paper' is the released code to the letter, 'fixed' mends it; null: 'fixed'"),
    ] = None
    image_dir: Annotated[
        str | None, LocalPath(), Field(description="root of the images; null: where prepare found them")
    ] = None
    feature_dir: Annotated[
        str | None, LocalPath(), Field(description="one feature store; null: the matching one in dir")
    ] = None
    visual_features: Annotated[
        Literal["cache", "encode", "zero"],
        Field(
            description="'cache': stored features (vision-language backbones: where there are some, else as 'encode'); "
            "'encode': the encoder on the fly; 'zero': blind baseline"
        ),
    ] = "cache"
    on_image_error: Annotated[
        Literal["stop", "skip"],
        Field(description="an image that cannot be read: stop, or go on without it (encoding, caching, predict)"),
    ] = "stop"
    batch_size: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="examples per optimiser step, over all processes")
    ] = 16
    eval_batch_size: Annotated[
        int, MayDiffer(), Field(ge=1, le=MAX_SIZE, description="examples per process and forward at evaluation")
    ] = 64
    max_source_length: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="text tokens kept (s), without prompt and visual tokens")
    ] = 256
    max_target_length: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="target tokens kept and generated at most")
    ] = 32
    answer_cue: Annotated[
        str | None,
        Field(description="last text before an answer; null: the task's and form's if decoder-only, none for T5"),
    ] = None
    answer_form: Annotated[
        AnswerForm | None,
        Field(description="decoder-only: 'plain', 'chat' (tokenizer's template) or 'released'; null: the protocol's"),
    ] = None
    on_long: Annotated[
        Literal["truncate", "error"], MayDiffer(), Field(description="what happens to a source text of more tokens")
    ] = "truncate"
    words_before: Annotated[
        tuple[str, ...] | None,
        Field(description="while training, one of these or none, drawn anew each step, stands before a row's text"),
    ] = None
    padding: Annotated[
        Literal["longest", "max_length"], Field(description="pad to the batch's longest text, or to max_source_length")
    ] = "longest"
    length_grouping: Annotated[
        bool, Field(description="batch texts of like length together (within shuffled pools)")
    ] = True
    rows_per_image: Annotated[
        int | None,
        Field(ge=1, le=MAX_SIZE, description="training rows of one image side by side, at most; null: drawn singly"),
    ] = None
    target_sampling: Annotated[
        Literal["weighted", "best"],
        Field(description="training target: drawn in proportion to its soft score, or the best one"),
    ] = "weighted"
    loss_weighting: Annotated[
        Literal["none", "score"], Field(description="'score': loss times the drawn target's soft score (Sung et al.)")
    ] = "none"
    loss_mean: Annotated[
        Literal["examples", "tokens"],
        Field(
            description="a step's loss: the mean of each example's own mean (Sung et al.'s VQA), or the mean of all "
            "target tokens (transformers' own: released DePT, Sung et al.'s captions)"
        ),
    ] = "examples"
    num_workers: Annotated[
        int, MayDiffer(), Field(ge=0, le=1024, description="loader processes per training process")
    ] = 0
    few_shot: Annotated[
        int | None, Field(ge=1, description="train on so many examples in all, chosen by the seed; null: on all")
    ] = None
    few_shot_rule: Annotated[
        Literal["balanced", "released"],
        Field(description="'balanced': equal counts per class; 'released': the sampler of the released code"),
    ] = "balanced"


@dataclass(frozen=True, config=STRICT)
class OptimConfig:
    """One rate per named group (Shi & Lipani 2024, section 2.2 and Table 10); a method's are its own."""

    name: Annotated[
        Literal["adamw", "adafactor", "prodigy", "schedule-free"],
        Field(
            description="'adafactor': transformers', with the rates as given (no relative step) and no momentum; "
            "'prodigy' finds a rate a group itself; 'schedule-free': AdamW's averages in place of a decay"
        ),
    ] = "adamw"
    projection_lr: Annotated[float, Field(gt=0, description="peak rate of the visual projection")] = 5e-4
    weight_decay: Annotated[float, Field(ge=0, description="decoupled: a step takes rate x this of a tensor")] = 0.01
    weight_decay_on: Annotated[
        Literal["all", "not-biases"],
        Field(description="what decays: every trainable tensor, or not those with 'bias' in their name (Sung et al.)"),
    ] = "all"
    beta1: Annotated[float, Field(ge=0, lt=1, description="AdamW beta 1")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="AdamW beta 2")] = 0.98
    eps: Annotated[float, Field(gt=0, description="AdamW epsilon")] = 1e-6
    decay_rate: Annotated[
        float, Field(gt=0, le=1, description="Adafactor: the second moment's beta 2 at step n (from 1) is 1 - n^-this")
    ] = 0.8
    factored: Annotated[
        bool, Field(description="Adafactor: second moments of matrices as row and column means; false: of each entry")
    ] = True
    scale_parameter: Annotated[
        bool, Field(description="Adafactor: a tensor's rate times its root mean square, at least 1e-3 (T-Few)")
    ] = False
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="share of a target's weight given to all words alike, while training")
    ] = 0.0
    schedule: Annotated[
        Literal["linear", "cosine", "constant"], Field(description="decay after warm-up, to 0 at the last step")
    ] = "linear"
    warmup_proportion: Annotated[float, Field(ge=0, le=1, description="share of max_steps")] = 0.06
    warmup_steps: Annotated[int | None, Field(ge=0, description="replaces warmup_proportion when given")] = None
    warmup: Annotated[
        Literal["above-zero", "transformers"],
        Field(
            description="share of the peak rate at step n (from 0) of w: 'above-zero': (n + 1) / (w + 1); "
            "'transformers' (the released code, Sung et al.): n / w, 0 at the first step"
        ),
    ] = "above-zero"
    max_grad_norm: Annotated[float | None, Field(gt=0, description="clip the global norm; null: no clipping")] = None


@dataclass(frozen=True, config=STRICT)
class LoopConfig:
    """How long to train, when to evaluate and to save."""

    max_steps: Annotated[
        int | None, Field(ge=1, le=MAX_STEPS, description="optimiser steps; null where loop.epochs says how long")
    ] = 30_000
    epochs: Annotated[
        float | None,
        Field(
            gt=0,
            le=MAX_STEPS,
            description="in place of max_steps: passes over the training rows, each of their whole batches",
        ),
    ] = None
    eval_every_steps: Annotated[
        int | None, Field(ge=1, description="optimiser steps between evaluations on val; null with eval_every_epochs")
    ] = 1_000
    eval_every_epochs: Annotated[
        float | None, Field(gt=0, le=MAX_STEPS, description="in place of eval_every_steps: passes between evaluations")
    ] = None
    save_every_steps: Annotated[int, MayDiffer(), Field(ge=1, description="optimiser steps between checkpoints")] = (
        1_000
    )
    keep_checkpoints: Annotated[
        int, MayDiffer(), Field(ge=1, description="how many of the newest checkpoints stay")
    ] = 2
    log_every_steps: Annotated[
        int, MayDiffer(), Field(ge=1, description="optimiser steps between lines of metrics.jsonl")
    ] = 20
    trackers: Annotated[
        tuple[Literal["tensorboard", "wandb", "trackio"], ...] | None,
        Names(),
        MayDiffer(),
        Field(
            description="where metrics go beside metrics.jsonl; null: TensorBoard where it is installed; []: nowhere"
        ),
    ] = None
    early_stop_evals: Annotated[
        int | None, Field(ge=1, description="stop after so many evaluations without a better one; null: never")
    ] = None
    eval_rows: Annotated[
        int | None, Field(ge=1, description="evaluate on the first so many val rows while training; null: all")
    ] = None
    best_metric: Annotated[
        str | None,
        Field(
            description="what picks the best checkpoint: a score such as exact_match, or loss, the validation loss "
            "(lower is better); of several tasks their mean, or one task's as rte/accuracy; null: the task's score, "
            "where it fits"
        ),
    ] = None
    accumulation_steps: Annotated[int, Field(ge=1, description="backward passes a batch is cut into")] = 1
    precision: Annotated[
        Literal["float32", "bf16"], Field(description="'bf16': autocast, trainable tensors stay float32")
    ] = "float32"
    on_nan: Annotated[
        Literal["stop", "skip"],
        MayDiffer(),
        Field(description="a loss or gradient that is not finite, or exploded: end the run, or skip the step's update"),
    ] = "stop"
    max_skipped_steps: Annotated[
        int, MayDiffer(), Field(ge=1, description="steps in a row that on_nan=skip may skip before the run ends")
    ] = 10
    exploded_norm: Annotated[
        float, Field(gt=0, description="gradient norm of a parameter group, before clipping, that counts as exploded")
    ] = 1e8

    @model_validator(mode="after")
    def _check_lengths(self) -> LoopConfig:
        for steps, epochs in STEPS_OR_EPOCHS:
            if (getattr(self, steps) is None) == (getattr(self, epochs) is None):
                raise ValueError(f"give loop.{steps} or loop.{epochs}, one of them")
        return self

    def in_steps(self, steps_per_epoch: int) -> LoopConfig:
        """Returns these settings with what they give in epochs as whole steps, at least one.

        Raises:
            ConfigError: There are more steps than a run may have.
        """
        changed: dict[str, Any] = {}
        for steps, epochs in STEPS_OR_EPOCHS:
            given = getattr(self, epochs)
            if given is not None:
                changed |= {steps: max(1, round(given * steps_per_epoch)), epochs: None}
        if changed.get("max_steps", 0) > MAX_STEPS:
            raise ConfigError(
                f"loop.epochs: {self.epochs:g} passes of {steps_per_epoch:,} steps are more than the {MAX_STEPS:,} "
                "steps a run may have"
            )
        return replace(self, **changed)


@dataclass(frozen=True, config=STRICT)
class DecodeConfig:
    """How answers are made."""

    method: Annotated[
        Literal["auto", "generate", "score"],
        Field(description="'score': the task's most likely label, exactly; 'auto': that where there are labels"),
    ] = "auto"
    num_beams: Annotated[int, Field(ge=1, le=1024, description="beams of decode.method=generate; 1: greedy")] = 1
    max_new_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SIZE,
            description="generated tokens at most; null: data.max_target_length (T5's start token is not counted, as "
            "it is in transformers' max_length)",
        ),
    ] = None


@dataclass(frozen=True, config=ConfigDict(**STRICT, populate_by_name=True))
class InitConfig:
    """A trained adapter to start from instead of fresh values (Shi & Lipani 2024, section 3.4; SPoT, Vu et al. 2022).

    `source` is ``from`` in files and on the command line, a word Python keeps to itself.
    """

    source: Annotated[
        str | None,
        LocalPath(or_name=True),
        Field(alias="from", description="run whose trained values this run starts from: folder, hub id; null: fresh"),
    ] = None
    parts: Annotated[
        Literal["all", "prompt"],
        Field(description="what is taken: the whole tuner (and a projection of equal shape), or the soft prompt alone"),
    ] = "all"


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """Everything that defines a run."""

    task: Annotated[
        str, Field(description="what to train on: a name, several as rte+cola, or a YAML file that declares it")
    ] = "vqa"
    declaration: Annotated[
        TaskDeclaration | None, Whole(), Field(description="what that file says; null for a task of the package")
    ] = None
    output_dir: Annotated[str | None, LocalPath(), Field(description="run folder; null: runs/<task>-<tuner>")] = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="initialisation, data order, drawn answers, dropout")] = 0
    tuner: Annotated[TunerConfig, Field(description="the method, or several at once: dept+lora")] = Field(
        default_factory=DeptConfig
    )
    init: Annotated[InitConfig, Field(description="where training starts")] = Field(default_factory=InitConfig)
    model: Annotated[ModelConfig, Field(description="frozen models")] = Field(default_factory=ModelConfig)
    data: Annotated[DataConfig, Field(description="batches")] = Field(default_factory=DataConfig)
    mix: Annotated[MixConfig, Field(description="several tasks in one run")] = Field(default_factory=MixConfig)
    optim: Annotated[OptimConfig, Field(description="optimiser")] = Field(default_factory=OptimConfig)
    loop: Annotated[LoopConfig, Field(description="training loop")] = Field(default_factory=LoopConfig)
    decode: Annotated[DecodeConfig, Field(description="answers")] = Field(default_factory=DecodeConfig)

    @property
    def run_dir(self) -> Path:
        """The run folder: `output_dir`, or ``runs/<task>-<tuner>``."""
        return Path(self.output_dir or f"runs/{self.task}-{self.tuner.label}")

    def resolve_task(self) -> Task:
        """Returns the task, under the settings' protocol; of several, see `each_task`.

        Raises:
            ConfigError: There is no such task, or it has no such protocol; or there are several.
        """
        if self.is_mix:
            raise ConfigError(f"task: {self.task!r} names several tasks, and one is wanted here; name one of them")
        if self.declaration is not None:
            return make_task(self.declaration)
        return get_task(self.task).under(self.data.protocol)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of its tasks, in the order of their task ids."""
        return tuple(self.task.split(JOINED))

    @property
    def is_mix(self) -> bool:
        """Whether several tasks are trained together."""
        return len(self.task_names) > 1

    @property
    def uses_images(self) -> bool:
        """Whether there are rows with images."""
        return any(one.resolve_task().uses_images for one in self.each_task())

    def each_task(self) -> tuple[TrainConfig, ...]:
        """Returns the settings as each of its tasks has them, in their order: of one task, these."""
        return tuple(self.for_task(name) for name in self.task_names)

    def for_task(self, name: str) -> TrainConfig:
        """Returns the settings as one of its tasks has them: they are of that task alone.

        Where the settings name no protocol, a task has its own default; it keeps and generates as many target tokens as
        it has by default, where the settings have more; and ``loop.best_metric`` is what of it is this task's.

        Args:
            name: One of `task_names`.

        Raises:
            ConfigError: It is none of them.
        """
        if name not in self.task_names:
            raise ConfigError(f"task: {name!r} is none of the run's ({', '.join(self.task_names)})")
        if not self.is_mix:
            return self
        task, data = get_task(name), self.data
        protocol: Any = (data.protocol or task.protocols[0]) if task.protocols else None
        length = min(data.max_target_length, task.max_target_length)
        best = None if self.loop.best_metric == MEAN else self.loop.best_metric
        owner, slash, metric = (best or "").partition("/")
        if slash:
            best = metric if owner == name else None
        return replace(
            self,
            task=name,
            data=replace(data, protocol=protocol, max_target_length=length),
            loop=replace(self.loop, best_metric=best),
        )

    @property
    def is_demo_data(self) -> bool:
        """Whether the run uses the embedded scenes."""
        return self.data.dir == DEMO
