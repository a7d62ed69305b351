"""The assembly: frozen backbone, trainable method and projection, and the one input of all their uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dept_vl.data.image_rows import VisualFeatures
from dept_vl.data.text_codec import Frame, TextCodec
from dept_vl.models.adapter.card import model_card
from dept_vl.models.adapter.files import (
    AdapterConfig,
    BackboneIdentity,
    copy_tensors,
    load_adapter,
    save_adapter,
)
from dept_vl.models.adapter.fits import check_fits
from dept_vl.models.adapter.identity import backbone_identity, visual_settings
from dept_vl.models.config import ModelConfig
from dept_vl.models.distillation import Answer, distance_per_example, state_hooks
from dept_vl.models.joined_source import join_source
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.joint import JointInput
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.shared_prompt import KeptPromptKeys, SharedPrompt, shared_prompt
from dept_vl.models.loss import ModelOutput, loss_per_example
from dept_vl.models.parameter_budget import ParameterBudget, count_parameters
from dept_vl.models.trained_names import connector_names, method_names
from dept_vl.models.vision.projection import VisualProjection, project_features
from dept_vl.system.version import __version__
from dept_vl.tasks import Task
from dept_vl.tasks.mixture import JOINED
from dept_vl.tuners import TunerConfig
from dept_vl.tuners.base import ParamGroup, Tuner
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.hooks import SiteHook, merge_hooks
from dept_vl.tuners.places.sites import Site
from dept_vl.tuners.prompts.teacher import Teacher


class AdaptedModel(nn.Module):
    """A language model that reads [soft prompt; text; visual tokens], adapted by a method: CLIP-T5 where it is a T5.

    Positions. The prompt comes first, the text after it, the image last, or several one after the other. Padding is
    neutral: an example's logits do not depend on its batch mates. T5's encoder has it between text and image
    (`dept_vl.models.language.relative_bias` has the rules of its relative position bias); a decoder-only model has it
    before the prompt, and after the image the answer cue and the target (`dept_vl.models.language.causal`). Without
    features the same code reads text alone.

    Trainable are the method's tensors, the backbone's own that it asks for, the projection unless it is frozen, and a
    vision-language model's connector if asked for.

    Attributes:
        backbone: The frozen model; a private copy where the method trains some of its tensors.
        tuner: The method.
        visual_projection: feature_dim -> d_model, or None for a model that reads text alone.
        config: The settings it was built from.
        answer_cue: The last text before an answer, for the adapter file.
        answer_form: How it is led to an answer, for the adapter file; None for T5.
        frame: The tokens that stand around prompt, images and text.
        tasks: Names of the tasks that are trained together, in the order of ``task_ids``; empty for one.
    """

    def __init__(
        self,
        backbone: Backbone[Any],
        tuner: Tuner,
        visual_projection: VisualProjection | None,
        config: ModelConfig,
        codec: TextCodec | None = None,
        tasks: Sequence[str] = (),
    ) -> None:
        """Puts the parts together; `build_model` makes them.

        Args:
            backbone: It is never changed: what the method trains of it is copied.
            tuner: Built for this backbone.
            visual_projection: Onto its width, or None.
            config: Frozen models and how they are joined.
            codec: What makes its token ids from text; None for a model that is only counted.
            tasks: Names of the tasks that are trained together; empty for one.

        Raises:
            ConfigError: The method trains tensors of the backbone that are not float32.
        """
        super().__init__()
        own = set(tuner.trained_backbone_parameters(method_names(backbone)))
        connector = connector_names(backbone) if config.train_connector else set()
        self.backbone = backbone.private_copy(own | connector) if own or connector else backbone
        self.tuner = tuner
        self.visual_projection = visual_projection
        self.config = config
        self.answer_cue = codec.answer_cue if codec else ""
        self.answer_form = codec.answer_form if codec else None
        self.frame = codec.frame if codec else Frame()
        self.tasks = tuple(tasks)
        self._own, self._connector = own, connector
        self._prompt_keys = KeptPromptKeys()
        self._identity: BackboneIdentity | None = None

    @property
    def feature_dim(self) -> int | None:
        """Width of the visual features, or None for a model that reads text alone."""
        return None if self.visual_projection is None else self.visual_projection.feature_dim

    @property
    def tells_images_apart(self) -> bool:
        """Whether it matters in which order the images of a row are given: by their tokens, or by positions."""
        by_position = self.backbone.visual_position_bias != "zero"
        return by_position or (self.visual_projection is not None and self.visual_projection.tells_images_apart)

    def joint_input(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: VisualFeatures | None = None,
        info: ForwardInfo | None = None,
    ) -> JointInput:
        """Builds what the backbone reads; training, generation and label scoring all start here.

        Args:
            input_ids: (batch, text) token ids, padded on the right.
            attention_mask: (batch, text), 1 for text and 0 for padding.
            visual_features: As `VisualFeatures` says, of any floating type; or None.
            info: The forward pass that it is for; None for one of a single task.

        Raises:
            DataError: The text is longer than the tuner's, or features are of another width or not expected.
        """
        info = info or self.forward_info(attention_mask, visual_features)
        shared = shared_prompt(self.tuner, info, None if self._own else self._prompt_keys)
        return self._join(lambda text: self.tuner.embed(text, info), input_ids, attention_mask, visual_features, shared)

    def _join(
        self,
        embed: Callable[[Tensor], Tensor],
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: VisualFeatures | None,
        shared: SharedPrompt | None = None,
    ) -> JointInput:
        """Builds what the backbone reads of prompt and text as `embed` makes them."""
        return join_source(
            self.backbone, input_ids, attention_mask, visual_features, embed=embed,
            project=lambda features: project_features(self.visual_projection, features, self.backbone.word_embeddings),
            frame=self.frame, shared=shared,
        )  # fmt: skip

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        visual_features: VisualFeatures | None = None,
        task_ids: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> ModelOutput:
        """Computes the loss of every example by teacher forcing, and while training what the method adds to it.

        A method with a teacher adds how far it is from that (`dept_vl.models.distillation`).

        Args:
            input_ids: As `joint_input`.
            attention_mask: As `joint_input`.
            labels: (batch, target) target ids, `IGNORE_INDEX` for padding.
            visual_features: As `joint_input`.
            task_ids: (batch,) the examples' tasks (`ForwardInfo`).
            label_smoothing: As `loss_per_example`; a step of training has it, a validation loss has not.

        Raises:
            DataError: As `joint_input`, or longer with its target than the backbone can read.
        """
        info = self.forward_info(attention_mask, visual_features, task_ids)
        teacher = self.tuner.teacher() if self.training else None
        with self._acting(info, state_hooks(self.backbone) if teacher else {}):
            joint = self.joint_input(input_ids, attention_mask, visual_features, info)
            logits = self.backbone.logits(joint, labels)  # (batch, target, vocabulary)
            losses = loss_per_example(logits, labels, label_smoothing)
            if self.training and (added := self.tuner.auxiliary_loss(info)) is not None:
                losses = losses + added
        if teacher:
            taught = self._answer_of(teacher, input_ids, attention_mask, labels, visual_features, task_ids)
            distance = distance_per_example(Answer.of(logits, info), taught, joint.attention_mask, labels)
            losses = losses + teacher.weight * distance
        return ModelOutput(losses, logits)

    @torch.no_grad()
    def _answer_of(
        self,
        teacher: Teacher,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        visual_features: VisualFeatures | None,
        task_ids: Tensor | None,
    ) -> Answer:
        """Lets the frozen backbone answer with a teacher's input, without dropout."""
        info = self.forward_info(attention_mask, visual_features, task_ids)
        with self._in_evaluation_mode(), self.backbone.hooked(state_hooks(self.backbone), info):
            joint = self._join(lambda text: teacher.embed(text, info), input_ids, attention_mask, visual_features)
            return Answer.of(self.backbone.logits(joint, labels), info)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: VisualFeatures | None = None,
        task_ids: Tensor | None = None,
        *,
        num_beams: int = 1,
        max_new_tokens: int,
    ) -> Tensor:
        """Generates answers, greedily or by beam search, always without dropout.

        Args:
            input_ids: As `joint_input`.
            attention_mask: As `joint_input`.
            visual_features: As `joint_input`.
            task_ids: As `forward`.
            num_beams: 1 for greedy.
            max_new_tokens: Generated tokens at most, the end-of-sequence token included.

        Returns:
            (batch, new tokens) ids without a start token, padded on the right.

        Raises:
            DataError: As `forward`.
        """
        with self.answering(input_ids, attention_mask, visual_features, task_ids) as joint:
            return self.backbone.generate(joint, num_beams=num_beams, max_new_tokens=max_new_tokens)

    @torch.no_grad()
    def score_labels(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: VisualFeatures | None = None,
        task_ids: Tensor | None = None,
        *,
        labels: LabelTrie,
    ) -> Tensor:
        """Computes the exact log-likelihood of every label, always without dropout.

        The source is read once, and all labels in one pass after it, a prefix that several share once.

        Args:
            input_ids: As `joint_input`.
            attention_mask: As `joint_input`.
            visual_features: As `joint_input`.
            task_ids: As `forward`.
            labels: The labels, on the device of `input_ids`.

        Returns:
            (batch, labels) float32: the sum over all tokens of a label, its end of sequence included, in nats and not
            normalised by length.

        Raises:
            DataError: As `forward`.
        """
        with self.answering(input_ids, attention_mask, visual_features, task_ids) as joint:
            return labels.log_likelihoods(self.backbone.trie_logits(joint, labels))

    @torch.no_grad()
    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: VisualFeatures | None = None,
        task_ids: Tensor | None = None,
    ) -> Tensor:
        """Returns a vector for each source of `joint_input`, (batch, d_model) float32 (`Backbone.source_embedding`)."""
        with self.answering(input_ids, attention_mask, visual_features, task_ids) as joint:
            return self.backbone.source_embedding(joint).float()

    @contextmanager
    def answering(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        visual_features: VisualFeatures | None = None,
        task_ids: Tensor | None = None,
    ) -> Iterator[JointInput]:
        """Gives the joint input for any uses in the block, without dropout; see `joint_input`."""
        info = self.forward_info(attention_mask, visual_features, task_ids)
        with self._in_evaluation_mode(), self._acting(info):
            yield self.joint_input(input_ids, attention_mask, visual_features, info)

    @contextmanager
    def _in_evaluation_mode(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def param_groups(self) -> list[ParamGroup]:
        """Returns every trainable tensor in one group: the method's, ``visual_projection``, or ``connector``."""
        own = {name: p for name, p in self.backbone.model.named_parameters() if name in self._own}
        groups = self.tuner.param_groups(own)
        if self.visual_projection is not None and self.config.frozen_projection is None:
            groups.append(ParamGroup("visual_projection", tuple(self.visual_projection.parameters())))
        if self._connector:
            connector = (p for name, p in self.backbone.model.named_parameters() if name in self._connector)
            groups.append(ParamGroup("connector", tuple(connector)))
        return groups

    def parameter_budget(self) -> ParameterBudget:
        """Counts trainable parameters by group, and the backbone's."""
        return count_parameters(self, self.backbone, self.param_groups(), self.tuner.facts(), len(self.tasks) or 1)

    def trainable_state(self) -> dict[str, Tensor]:
        """Returns the trainable tensors by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def adapter_state(self) -> dict[str, Tensor]:
        """Returns all tensors that an adapter holds, by name: the trainable ones and the method's frozen ones."""
        return {**self.trainable_state(), **{f"tuner.{name}": t for name, t in self.tuner.frozen_state().items()}}

    def adapter_config(self, *, task: Task | None = None, features: dict[str, Any] | None = None) -> AdapterConfig:
        """Returns what an adapter saved now would record."""
        self._identity = self._identity or backbone_identity(self.backbone, self.config.backbone, self.config.revision)
        return AdapterConfig(
            dept_vl_version=__version__,
            backbone=self._identity,
            max_source_length=self.tuner.max_source_length,
            tuner=cast("TunerConfig", self.tuner.recorded_settings()),  # every method's settings are in that union
            facts=self.tuner.facts(),
            visual=visual_settings(self.visual_projection, self.backbone, self.config),
            answer_cue=self.answer_cue,
            answer_form=self.answer_form,
            system_prompt=self.config.system_prompt,
            train_connector=self.config.train_connector,
            task=task.name if task else JOINED.join(self.tasks) or None,
            declaration=task.declaration if task else None,
            tasks=self.tasks,
            features=features,
        )

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        task: Task | None = None,
        features: dict[str, Any] | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Saves the adapter's tensors, what they fit, and a model card.

        Args:
            folder: Where to; other files in it stay.
            task: What was trained on, for the card and for whoever loads it.
            features: Fingerprint of the visual features it was trained on.
            scores: On ``val``, in the scorers' own scale, for the card.

        Raises:
            CheckpointError: A tensor is not finite; nothing is written.
        """
        config = self.adapter_config(task=task, features=features)
        tensors = self.adapter_state() | {f"tuner.{name}": t for name, t in self.tuner.saved_values().items()}
        save_adapter(Path(folder), tensors, config, model_card(config, self.config, scores))

    def load_adapter(self, folder: str | Path) -> AdapterConfig:
        """Loads an adapter into this model, bit for bit, and returns its settings.

        Raises:
            CheckpointError: The adapter is damaged, or was made for another backbone, text length, tuner or
                projection; the message names both sides.
        """
        folder = Path(folder)

        def expect(saved: AdapterConfig) -> dict[str, Tensor]:
            check_fits(folder, saved, self.adapter_config())
            return self.adapter_state()

        tensors, saved = load_adapter(folder, expect)
        copy_tensors(self.adapter_state(), tensors, str(folder))
        return saved

    def forward_info(
        self, text_mask: Tensor, visual_features: VisualFeatures | None, task_ids: Tensor | None = None
    ) -> ForwardInfo:
        """Returns what the method is told of one pass."""
        num_visual_tokens = visual_features.shape[1:-1].numel() if isinstance(visual_features, Tensor) else 0
        return ForwardInfo(text_mask, self.tuner.num_virtual_tokens, task_ids, num_visual_tokens)

    @contextmanager
    def _acting(self, info: ForwardInfo, also: Mapping[Site, SiteHook] | None = None) -> Iterator[None]:
        """Lets the method act inside the backbone for the block, and further hooks after it."""
        hooks = merge_hooks(self.tuner.site_hooks(), also) if also else self.tuner.site_hooks()
        with self.backbone.hooked(hooks, info, self.tuner.extra_keys(info), self.tuner.side_network()):
            yield
