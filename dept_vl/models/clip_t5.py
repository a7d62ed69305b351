"""CLIP-T5 with a tuner: frozen T5, trainable tuner and visual projection, and the one encoder input of both uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from dept_vl import __version__
from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.errors import CheckpointError, DataError
from dept_vl.models.adapter import (
    AdapterConfig,
    BackboneIdentity,
    VisualSettings,
    check_equal,
    check_fits,
    load_adapter,
    model_card,
    read_adapter_config,
    save_adapter,
)
from dept_vl.models.backbone import backbone_identity, generation_config, load_t5, meta_t5, t5_config
from dept_vl.models.config import ModelConfig
from dept_vl.models.joint_encoder import EncoderInput, join, run_encoder
from dept_vl.models.parameter_budget import ParameterBudget, count_parameters
from dept_vl.models.projection import VisualProjection, build_projection
from dept_vl.tuners import TunerConfig
from dept_vl.tuners.base import BackboneInfo, Tuner
from dept_vl.tuners.budget import Budget

__all__ = [
    "CLIPT5",
    "Backbone",
    "CLIPT5Output",
    "EncoderInput",
    "ParameterBudget",
    "build_meta_model",
    "build_model",
    "load_backbone",
]

Backbone = tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase]
"""A frozen backbone with its tokenizer."""


@dataclass(frozen=True)
class CLIPT5Output:
    """The result of a training forward.

    Attributes:
        loss_per_example: (batch,) float32, mean cross-entropy over the example's own label tokens, in nats.
        logits: (batch, target, vocabulary).
    """

    loss_per_example: Tensor
    logits: Tensor


class CLIPT5(nn.Module):
    """A frozen T5 that reads [soft prompt; text; visual tokens].

    Positions. The prompt comes first, the text after it, the image last; a tuner counts text tokens from the first
    text token whatever the prompt's length. Text padding lies between text and image in a batch and is neutral: an
    example's logits do not depend on its batch mates (`dept_vl.models.relative_bias` has the rules of T5's relative
    position bias). Without visual features the same code reads text alone.

    Only the tuner and the projection are trainable. T5 is called as it is; none of its methods is replaced.

    Attributes:
        t5: The frozen backbone.
        tuner: The trainable method.
        visual_projection: feature_dim -> d_model, or None for a model that reads text alone.
        config: The settings it was built from.
    """

    def __init__(
        self,
        t5: T5ForConditionalGeneration,
        tuner: Tuner,
        visual_projection: VisualProjection | None,
        config: ModelConfig,
    ) -> None:
        """Puts the parts together; `build_model` makes them."""
        super().__init__()
        self.t5 = t5
        self.tuner = tuner
        self.visual_projection = visual_projection
        self.config = config
        self._identity: BackboneIdentity | None = None

    @property
    def feature_dim(self) -> int | None:
        """Width of the visual features, or None for a model that reads text alone."""
        return None if self.visual_projection is None else self.visual_projection.feature_dim

    def encoder_input(
        self, input_ids: Tensor, attention_mask: Tensor, visual_features: Tensor | None = None
    ) -> EncoderInput:
        """Builds what the encoder reads; training and generation both start here.

        Args:
            input_ids: (batch, text) token ids, padded on the right.
            attention_mask: (batch, text), 1 for text and 0 for padding.
            visual_features: (batch, visual, feature_dim) of any floating type, or None.

        Raises:
            DataError: The text is longer than the tuner's, or features are of another width or not expected.
        """
        table = self.t5.shared.weight
        worded_embeds = self.tuner.embed(nn.functional.embedding(input_ids, table))  # (batch, prompt + text, d_model)
        visual_embeds = None
        if visual_features is not None:
            visual_embeds = self._project(visual_features, table)  # (batch, visual, d_model)
        return join(
            self.t5.encoder,
            worded_embeds,
            visual_embeds,
            attention_mask,
            visual_position_bias=self.config.visual_position_bias,
        )

    def encode(self, encoder_input: EncoderInput) -> Tensor:
        """Runs the frozen encoder; returns its last hidden states, (batch, prompt + text + visual, d_model)."""
        return run_encoder(self.t5.encoder, encoder_input)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        visual_features: Tensor | None = None,
    ) -> CLIPT5Output:
        """Computes the loss of every example by teacher forcing.

        Args:
            input_ids: (batch, text) token ids, padded on the right.
            attention_mask: (batch, text), 1 for text and 0 for padding.
            labels: (batch, target) target ids, `IGNORE_INDEX` for padding.
            visual_features: (batch, visual, feature_dim), or None.

        Raises:
            DataError: As `encoder_input`.
        """
        encoder_input = self.encoder_input(input_ids, attention_mask, visual_features)
        logits: Tensor = self.t5(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encode(encoder_input)),
            attention_mask=encoder_input.decoder_mask(),
            decoder_input_ids=self.t5.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).logits  # (batch, target, vocabulary)
        return CLIPT5Output(_loss_per_example(logits, labels), logits)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: Tensor | None = None,
        *,
        num_beams: int = 1,
        max_new_tokens: int,
    ) -> Tensor:
        """Generates answers, greedily or by beam search, always without dropout.

        Args:
            input_ids: (batch, text) token ids, padded on the right.
            attention_mask: (batch, text), 1 for text and 0 for padding.
            visual_features: (batch, visual, feature_dim), or None.
            num_beams: 1 for greedy.
            max_new_tokens: Generated tokens at most, the end-of-sequence token included.

        Returns:
            (batch, new tokens) ids without the decoder's start token, padded on the right.

        Raises:
            DataError: As `encoder_input`.
        """
        was_training = self.training
        self.eval()
        try:
            encoder_input = self.encoder_input(input_ids, attention_mask, visual_features)
            generated: Tensor = cast(Any, self.t5).generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.encode(encoder_input)),
                attention_mask=encoder_input.attention_mask,
                generation_config=generation_config(
                    self.t5.config, num_beams=num_beams, max_new_tokens=max_new_tokens, do_sample=False
                ),
            )
        finally:
            self.train(was_training)
        return generated[:, 1:]

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns every trainable tensor in exactly one of ``soft_prompt``, ``lowrank``, ``visual_projection``."""
        groups = self.tuner.param_groups()
        if self.visual_projection is not None:
            groups["visual_projection"] = list(self.visual_projection.parameters())
        return groups

    def parameter_budget(self) -> ParameterBudget:
        """Counts trainable parameters by group, and the frozen ones."""
        return count_parameters(self, self.param_groups(), self._budget())

    def trainable_state(self) -> dict[str, Tensor]:
        """Returns the trainable tensors by name: all that a checkpoint holds."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state(self, tensors: dict[str, Tensor], where: str = "checkpoint") -> None:
        """Copies tensors into the trainable ones; names and shapes must be the same, all of them.

        Raises:
            CheckpointError: Tensors are missing, not known, or of another shape or type; nothing is changed.
        """
        wanted = self.trainable_state()
        problems = [f"missing {name}" for name in sorted(wanted.keys() - tensors.keys())]
        problems += [f"unexpected {name}" for name in sorted(tensors.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & tensors.keys()):
            have, want = tensors[name], wanted[name]
            if (have.shape, have.dtype) != (want.shape, want.dtype):
                problems.append(
                    f"{name} is {tuple(have.shape)} {have.dtype}, the model has {tuple(want.shape)} {want.dtype}"
                )
        if problems:
            raise CheckpointError(f"{where}: does not fit the model: {'; '.join(problems)}")
        for name, target in wanted.items():
            target.copy_(tensors[name])

    def adapter_config(self, *, task: str | None = None, features: dict[str, Any] | None = None) -> AdapterConfig:
        """Returns what an adapter saved now would record."""
        if self._identity is None:
            self._identity = BackboneIdentity(**backbone_identity(self.t5, self.config.backbone))
        visual = None
        if self.feature_dim is not None:
            visual = VisualSettings(self.config.visual_projection, self.feature_dim, self.config.visual_position_bias)
        budget = self._budget()
        return AdapterConfig(
            dept_vl_version=__version__,
            backbone=self._identity,
            max_source_length=self.tuner.max_source_length,
            num_virtual_tokens=budget.num_virtual_tokens,
            rank=budget.rank,
            tuner=self.tuner.config,
            visual=visual,
            task=task,
            features=features,
        )

    def save_pretrained(
        self, folder: str | Path, *, task: str | None = None, features: dict[str, Any] | None = None
    ) -> None:
        """Saves the trainable tensors, what they fit, and a model card.

        Args:
            folder: Where to; other files in it stay.
            task: What was trained on, for the card.
            features: Fingerprint of the visual features it was trained on.

        Raises:
            CheckpointError: A tensor is not finite; nothing is written.
        """
        config = self.adapter_config(task=task, features=features)
        save_adapter(Path(folder), self.trainable_state(), config, model_card(config))

    def load_adapter(self, folder: str | Path) -> AdapterConfig:
        """Loads an adapter into this model, bit for bit, and returns its settings.

        Raises:
            CheckpointError: The adapter is damaged, or was made for another backbone, text length, tuner or
                projection; the message names both sides.
        """
        folder = Path(folder)
        tensors, saved = load_adapter(folder)
        check_fits(folder, saved, self.adapter_config())
        self.load_trainable_state(tensors, where=str(folder))
        return saved

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        model: ModelConfig,
        *,
        max_source_length: int | None = None,
        feature_dim: int | None = None,
        backbone: Backbone | None = None,
    ) -> tuple[CLIPT5, PreTrainedTokenizerBase]:
        """Builds the model an adapter was saved from.

        The adapter says what was trained; `model` alone says where the frozen backbone comes from.

        Args:
            folder: Holds ``adapter_model.safetensors`` and ``adapter_config.json``.
            model: Frozen models and how they are joined; checked against the adapter.
            max_source_length: Checked against the adapter's, if given.
            feature_dim: Width of the features to be read, checked against the adapter's, if given.
            backbone: What `load_backbone` returns for `model`, if it is loaded already.

        Raises:
            ConfigError: The backbone cannot be loaded.
            CheckpointError: As `load_adapter`.
        """
        saved = read_adapter_config(Path(folder))
        saved_dim = saved.visual.feature_dim if saved.visual else None
        asked = {
            "data.max_source_length": (saved.max_source_length, max_source_length),
            "visual.feature_dim": (saved_dim, feature_dim),
        }
        check_equal(Path(folder), {key: pair for key, pair in asked.items() if pair[1] is not None})
        built, tokenizer = build_model(
            model,
            saved.tuner,
            max_source_length=saved.max_source_length,
            feature_dim=saved_dim,
            seed=0,
            backbone=backbone,
        )
        built.load_adapter(folder)
        return built, tokenizer

    def _budget(self) -> Budget:
        return self.tuner.config.budget(self.t5.config.d_model, self.tuner.max_source_length)

    def _project(self, visual_features: Tensor, table: Tensor) -> Tensor:
        if self.visual_projection is None:
            raise DataError("visual features were given to a model built without a visual projection (text only)")
        width = visual_features.shape[-1]
        if width != self.visual_projection.feature_dim:
            raise DataError(
                f"visual features are {width}-d, the model was built for {self.visual_projection.feature_dim}-d ones; "
                "use the feature store of the encoder in model.clip"
            )
        projected: Tensor = self.visual_projection(visual_features.float(), table)
        return projected


def load_backbone(model: ModelConfig) -> Backbone:
    """Loads the frozen backbone and its tokenizer.

    Raises:
        ConfigError: It cannot be loaded.
    """
    return load_t5(
        model.backbone,
        model.revision,
        dropout_rate=model.dropout_rate,
        gradient_checkpointing=model.gradient_checkpointing,
    )


def build_model(
    model: ModelConfig,
    tuner: TunerConfig,
    *,
    max_source_length: int,
    feature_dim: int | None,
    seed: int,
    backbone: Backbone | None = None,
) -> tuple[CLIPT5, PreTrainedTokenizerBase]:
    """Loads the frozen T5 and puts a fresh tuner and projection on it.

    Args:
        model: Frozen models and how they are joined.
        tuner: The method.
        max_source_length: s, longest text in tokens.
        feature_dim: Width of the visual features; None for a model that reads text alone.
        seed: Of the first values of tuner and projection, each drawn from a generator of its own.
        backbone: What `load_backbone` returns for `model`, if it is loaded already; it is shared, not copied.

    Raises:
        ConfigError: The backbone cannot be loaded, or the tuner's budget cannot be met.
    """
    t5, tokenizer = backbone or load_backbone(model)
    info = BackboneInfo(
        d_model=t5.config.d_model,
        max_source_length=max_source_length,
        word_embeddings=t5.shared.weight,
        tokenize=lambda text: list(tokenizer(text)["input_ids"]),
        seed=seed,
    )
    projection = _projection(model, t5, feature_dim)
    if projection is not None:
        projection.reset_parameters(seed)
    return CLIPT5(t5, tuner.build(info), projection, model), tokenizer


def build_meta_model(
    model: ModelConfig, tuner: TunerConfig, *, max_source_length: int, feature_dim: int | None
) -> CLIPT5:
    """Builds the model on the meta device, without weights, to count its parameters (``dept-vl info``).

    Raises:
        ConfigError: The backbone's shape is not known here, or the tuner's budget cannot be met.
    """
    t5 = meta_t5(t5_config(model.backbone, model.revision))
    with torch.device("meta"):
        built = tuner.build_empty(t5.config.d_model, max_source_length)
        return CLIPT5(t5, built, _projection(model, t5, feature_dim), model)


def _projection(model: ModelConfig, t5: T5ForConditionalGeneration, feature_dim: int | None) -> VisualProjection | None:
    if feature_dim is None:
        return None
    return build_projection(
        model.visual_projection,
        feature_dim,
        t5.config.d_model,
        init_std=model.visual_projection_std,
        layer_norm_epsilon=t5.config.layer_norm_epsilon,
    )


def _loss_per_example(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns (batch,): cross-entropy averaged over each example's own label tokens (Sung et al.); 0 without any."""
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view(labels.shape)  # (batch, target)
    return losses.sum(dim=1) / (labels != IGNORE_INDEX).sum(dim=1).clamp(min=1)
