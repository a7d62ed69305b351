"""A run whose method becomes plain weights or a plain prompt, written as a run folder that answers the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.adapter.card import model_card
from dept_vl.models.adapter.files import AdapterConfig, read_adapter_config, save_adapter
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.folding import Folding, fold, write_into
from dept_vl.models.language.load import LoadedBackbone, open_backbone
from dept_vl.models.language.stored import find_folder, recorded_folder
from dept_vl.models.language.write import write_backbone
from dept_vl.runs.folder import RECORD_FILE, RUN_CONFIG_FILE, describe_run, read_run_config
from dept_vl.runs.hub import find_run
from dept_vl.runs.refusals import check_fold
from dept_vl.settings.load import absolute_config, dump_config
from dept_vl.settings.schema import InitConfig, TrainConfig
from dept_vl.system.atomic import atomic_folder, write_json, write_text

BACKBONE = "backbone"
"""Folder of the plain weights, in that of the folded run."""

TOLERANCE = 1e-5
"""How far logits may be from the run's, as a share of the largest of them."""

_ROWS, _TEXT, _VISUAL, _TARGET = 4, 48, 8, 6
"""Sizes of the made-up inputs that both are asked: rows, tokens at most, visual tokens, target tokens."""


@dataclass(frozen=True)
class Folded:
    """What became of a run.

    Attributes:
        folder: The folded run's.
        method: What was folded.
        left: What is left for a tuner to do: ``folded`` for nothing, ``prompt-tuning`` for a plain prompt.
        backbone: The folder of the plain weights; None where the frozen backbone stays as it is.
        difference: The largest difference between logits of the two, on made-up inputs.
        largest: The largest of the run's own logits there.
    """

    folder: Path
    method: str
    left: str
    backbone: Path | None
    difference: float
    largest: float

    def describe(self) -> str:
        """Returns it in a line."""
        weights = "the frozen weights as they are" if self.backbone is None else f"plain weights in {self.backbone}"
        left = "" if self.left == "folded" else f" and {self.left}"
        return (
            f"{self.method} to {weights}{left}; logits differ by {self.difference:.1e} at most, the largest is "
            f"{self.largest:.3g}"
        )


def fold_run(run_dir: Path, out: Path, *, config: TrainConfig | None = None) -> Folded:
    """Writes a folder that answers as a run does, its method turned into plain weights or a plain prompt.

    Both are asked about made-up inputs before the folder appears.

    Args:
        run_dir: The run's.
        out: The new run folder.
        config: The run's settings, where they are others than the recorded ones: what has moved.

    Raises:
        DataError: `out` is taken.
        ConfigError: The backbone cannot be loaded, or its weights are rounded to bfloat16 and would be changed.
        CheckpointError: No adapter, one that does not fit, or a method without a plain form; or the logits differ.
    """
    check_fold(run_dir, out)
    config = config or read_run_config(run_dir)
    frozen, tokenizer = open_backbone(config.model)
    model, _ = load_model(run_dir, config.model, backbone=(frozen, tokenizer), find_run=find_run)
    saved = read_adapter_config(run_dir)
    try:
        folding = fold(model)
    except CheckpointError as error:
        raise CheckpointError(f"{run_dir}: {error}") from None
    if folding.changes_weights and config.model.dtype != "float32":
        raise ConfigError(
            f"model.dtype: {config.tuner.label!r} changes weights, and in {config.model.dtype} they would be rounded "
            "again; fold it with --model.dtype float32"
        )
    with atomic_folder(out) as building:
        where = building / BACKBONE if folding.changes_weights else None
        if where is not None:
            source = find_folder(config.model.backbone, config.model.revision)
            assert source is not None  # it was loaded from there
            where.mkdir()
            write_backbone(write_into(model.backbone, folding), source, where, folding.encoder_table)
        folded = _build(model, config, saved, folding, where, (frozen, tokenizer))
        difference, largest = compare(model, folded)
        if not difference <= TOLERANCE * largest:
            raise CheckpointError(
                f"{run_dir}: cannot be folded: the logits of the result differ by {difference:.1e}, the largest is "
                f"{largest:.3g}; at most {TOLERANCE:g} of it is allowed"
            )
        result = Folded(
            out, config.tuner.label, folding.settings().label, None if where is None else out / BACKBONE,
            difference, largest,
        )  # fmt: skip
        _write(building, run_dir, config, saved, folded, result)
    return result


def _build(
    model: AdaptedModel,
    config: TrainConfig,
    saved: AdapterConfig,
    folding: Folding,
    where: Path | None,
    backbone: LoadedBackbone,
) -> AdaptedModel:
    """Returns the folded model as its folder will be loaded, with the values of the run."""
    built, _ = build_model(
        _frozen(config.model, where),
        folding.settings(),
        max_source_length=saved.max_source_length,
        feature_dim=model.feature_dim,
        seed=0,
        answer_cue=saved.answer_cue,
        answer_form=saved.answer_form or "released",
        tasks=saved.tasks,
        backbone=backbone if where is None else None,
        find_run=find_run,
    )
    folding.fill(built.tuner)
    if built.visual_projection is not None and model.visual_projection is not None:
        built.visual_projection.load_state_dict(model.visual_projection.state_dict())
    return built.eval()


def _frozen(model: ModelConfig, where: Path | None) -> ModelConfig:
    """Returns the settings of the frozen models of a folded run, a connector that was trained among the weights."""
    return model if where is None else replace(model, backbone=str(where), revision=None, train_connector=False)


def compare(one: AdaptedModel, other: AdaptedModel) -> tuple[float, float]:
    """Returns the largest difference between two models' logits on made-up inputs, and the first's largest logit.

    The inputs are random words of several lengths, padded, with random features where there are images.
    """
    generator = torch.Generator().manual_seed(0)
    words = one.backbone.word_embeddings
    limit = one.backbone.max_positions
    positions = limit.count if limit else _TEXT + _TARGET + _VISUAL + one.tuner.num_virtual_tokens + _TEXT
    room = positions - one.tuner.num_virtual_tokens - _TARGET - _VISUAL - len(one.frame.tail)
    length = max(1, min(_TEXT, one.tuner.max_source_length, room))
    ids = torch.randint(len(words), (_ROWS, length), generator=generator)
    mask = torch.zeros_like(ids)
    for row in range(_ROWS):
        mask[row, : max(1, length * (row + 1) // _ROWS)] = 1
    labels = torch.randint(len(words), (_ROWS, _TARGET), generator=generator)
    labels[0, _TARGET // 2 :] = IGNORE_INDEX
    features = None
    if one.feature_dim is not None:
        features = torch.randn(_ROWS, _VISUAL, one.feature_dim, generator=generator)
    both: list[Tensor] = []
    for model in (one, other):
        inputs: list[Any] = [None if t is None else t.to(words.device) for t in (ids, mask, labels, features)]
        with torch.no_grad():
            both.append(model(*inputs).logits.double())
    read = (labels != IGNORE_INDEX).to(both[0].device)
    first, second = (logits[read] for logits in both)
    return float((first - second).abs().max()), float(first.abs().max())


def _write(
    folder: Path, run_dir: Path, config: TrainConfig, saved: AdapterConfig, model: AdaptedModel, result: Folded
) -> None:
    """Writes settings, record and adapter of the folded run, all under the name that its folder will have."""
    frozen = _frozen(config.model, None if result.backbone is None else result.backbone.absolute())
    described = replace(model.adapter_config(), task=saved.task, declaration=saved.declaration, features=saved.features)
    settings = replace(config, tuner=described.tuner, model=frozen, output_dir=str(result.folder), init=InitConfig())
    if result.backbone is not None:
        name, revision = recorded_folder(result.backbone)
        described = replace(described, backbone=replace(described.backbone, name=name, revision=revision))
    record = {"folded": {"from": str(run_dir), "method": result.method, "logits_differ_by": result.difference}}
    write_json(folder / RECORD_FILE, {**describe_run(), **record})
    write_text(folder / RUN_CONFIG_FILE, dump_config(absolute_config(settings)))
    save_adapter(folder, model.trainable_state(), described, model_card(described, frozen))
