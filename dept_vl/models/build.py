"""Settings to a model: a fresh one, or the one that an adapter was saved from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.adapter.files import (
    read_adapter_config,
)
from dept_vl.models.adapter.fits import check_equal
from dept_vl.models.adapter.frozen_projection import load_projection
from dept_vl.models.adapter.source_prompts import prompt_reader
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.families import FAMILIES
from dept_vl.models.language.family import check_image_settings, check_positions
from dept_vl.models.language.load import LoadedBackbone, open_backbone
from dept_vl.models.vision.projection import VisualProjection, new_projection
from dept_vl.tasks.base import PLAIN_CUE, AnswerForm
from dept_vl.tuners import TunerConfig
from dept_vl.tuners.base import Tuner


def build_model(
    model: ModelConfig,
    tuner: TunerConfig,
    *,
    max_source_length: int,
    feature_dim: int | None,
    seed: int,
    answer_cue: str | None = None,
    answer_form: AnswerForm = "plain",
    task_cue: str = PLAIN_CUE,
    tasks: Sequence[str] = (),
    backbone: LoadedBackbone | None = None,
    find_run: Callable[[str], Path] = Path,
    takes_prompts: bool = True,
) -> tuple[AdaptedModel, TextCodec]:
    """Loads the frozen backbone and puts a fresh tuner and a fresh or a frozen projection on it.

    Args:
        model: Frozen models and how they are joined.
        tuner: The method.
        max_source_length: s, longest text in tokens.
        feature_dim: Width of the visual features; None for a model that reads text alone.
        seed: Of the first values of tuner and projection, each drawn from a generator of its own.
        answer_cue: As `TextCodec`.
        answer_form: As `TextCodec`.
        task_cue: As `TextCodec`.
        tasks: Names of the tasks that are trained together; empty for one.
        backbone: What `open_backbone` returns for `model`, if it is loaded already; it is shared, and only what the
            method trains of it is copied.
        find_run: From the name of a run, whose prompt or projection is taken, to its folder.
        takes_prompts: False where the values of an adapter or of a checkpoint are loaded after, which hold the prompts
            of other runs.

    Returns:
        The model, and what makes its token ids from text.

    Raises:
        ConfigError: The backbone cannot be loaded, has too few positions, or does not fit the tuner's settings; or the
            method has a teacher and reads images.
        CheckpointError: Such a run has no prompt or projection, or one for another backbone.
    """
    frozen, tokenizer = backbone or open_backbone(model)
    check_image_settings(FAMILIES[frozen.family], model)
    codec = frozen.new_codec(
        tokenizer, answer_cue, system_prompt=model.system_prompt,
        answer_form=answer_form, task_cue=task_cue, has_image=feature_dim is not None,
    )  # fmt: skip

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text)["input_ids"])

    read_prompt = prompt_reader(find_run, frozen, model, tokenize) if takes_prompts else None
    context = frozen.tuner_context(
        max_source_length, seed=seed, tokenize=tokenize, tasks=tasks, read_prompt=read_prompt
    )
    built: Tuner = tuner.build(context)
    if feature_dim is not None and built.teacher() is not None:
        raise ConfigError(
            "tuner.teachers: a teacher's prompt is taken without the visual projection that it was trained with, so it "
            "teaches text tasks alone; leave the teachers out for a task with images"
        )
    check_positions(frozen.max_positions, frozen.family, built.num_virtual_tokens, max_source_length)
    if feature_dim is not None and model.frozen_projection is not None:
        projection: VisualProjection | None = load_projection(model, frozen, feature_dim, find_run)
    else:
        projection = new_projection(model, frozen, feature_dim, tuner)
        if projection is not None:
            projection.reset_parameters(seed)
    return AdaptedModel(frozen, built, projection, model, codec, tasks), codec


def load_model(
    folder: str | Path,
    model: ModelConfig,
    *,
    max_source_length: int | None = None,
    feature_dim: int | None = None,
    answer_cue: str | None = None,
    answer_form: AnswerForm | None = None,
    backbone: LoadedBackbone | None = None,
    find_run: Callable[[str], Path] = Path,
) -> tuple[AdaptedModel, TextCodec]:
    """Builds the model an adapter was saved from, in evaluation mode.

    The adapter says what was trained; `model` alone says where the frozen backbone comes from.

    Args:
        folder: Holds ``adapter_model.safetensors`` and ``adapter_config.json``.
        model: Frozen models and how they are joined; checked against the adapter.
        max_source_length: Checked against the adapter's, if given.
        feature_dim: Width of the features to be read, checked against the adapter's, if given.
        answer_cue: Checked against the adapter's, if given.
        answer_form: Checked against the adapter's, if given.
        backbone: What `open_backbone` returns for `model`, if it is loaded already.
        find_run: From the name of the run whose projection is taken to its folder.

    Raises:
        ConfigError: The backbone cannot be loaded.
        CheckpointError: As `load_adapter`.
    """
    saved = read_adapter_config(Path(folder))
    saved_dim = saved.visual.feature_dim if saved.visual else None
    saved_form = saved.answer_form or "released"
    backbone = backbone or open_backbone(model)
    asked = {
        "data.max_source_length": (saved.max_source_length, max_source_length),
        "visual.feature_dim": (saved_dim, feature_dim),
        "data.answer_cue": (saved.answer_cue, answer_cue),
        "data.answer_form": (saved_form, answer_form if backbone[0].codec_class.has_forms else None),
    }
    check_equal(Path(folder), {key: pair for key, pair in asked.items() if pair[1] is not None})
    built, codec = build_model(
        model,
        saved.tuner,
        max_source_length=saved.max_source_length,
        feature_dim=saved_dim,
        seed=0,
        answer_cue=saved.answer_cue,
        answer_form=answer_form or saved_form,
        tasks=saved.tasks,
        backbone=backbone,
        find_run=find_run,
        takes_prompts=False,
    )
    built.load_adapter(folder)
    return built.eval(), codec
