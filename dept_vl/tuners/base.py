"""What a method offers: the places where it acts on a backbone, and its trainable tensors by name and group.

A method acts in any of five ways, and the base class does nothing in each: on the embeddings of the text
(`Tuner.embed`), on what comes out at places inside the backbone (`Tuner.site_hooks`), by keys and values that its
attentions read beside their own (`Tuner.extra_keys`), by training tensors of the backbone itself
(`Tuner.trained_backbone_parameters`), or by a network of its own that stands beside a backbone without gradients
(`Tuner.side_network`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError, DataError
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.side_network import SideNetwork
from dept_vl.tuners.places.extra_keys import ExtraKeys
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site
from dept_vl.tuners.prompts.teacher import Teacher
from dept_vl.tuners.row_embedding import RowEmbedding
from dept_vl.tuners.settings import TunerSettings

Fact = int | float | str
"""What is said of a built tuner, in reports, model cards and adapter files."""


@dataclass(frozen=True)
class ParamGroup:
    """Trainable tensors that share a learning rate.

    Attributes:
        name: As reports and metrics call it.
        parameters: Its tensors.
        lr: Peak rate, or a multiple of the word embeddings' size (`dept_vl.tuners.rates`); None for a group whose rate
            is a setting of the optimiser's.
        weight_decay: None for the optimiser's own.
        unsized: Those of its tensors that have no such size, as one of two factors: they get the number of a multiple.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float | str | None = None
    weight_decay: float | None = None
    unsized: tuple[nn.Parameter, ...] = ()


class Tuner(nn.Module, ABC):
    """A trainable method on a frozen backbone.

    Trainable tensors stay float32 whatever the precision of the backbone.

    Attributes:
        config: Its settings.
        max_source_length: Longest text in tokens (s).
        num_virtual_tokens: Vectors put before the text (m); may be 0.
    """

    config: TunerSettings
    num_virtual_tokens: int = 0

    def __init__(self, config: TunerSettings, context: TunerContext) -> None:
        """Notes settings and text length; a method's own makes its tensors, their values not yet set.

        Raises:
            ConfigError: The settings do not fit the backbone.
        """
        super().__init__()
        self.config = config
        self.max_source_length = context.max_source_length
        self.num_virtual_tokens = config.prompt_length(context.d_model, context.max_source_length)

    @abstractmethod
    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns every trainable tensor in exactly one group; empty groups are left out.

        Args:
            own: The backbone's parameters that `trained_backbone_parameters` asked for, by name.
        """

    @abstractmethod
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets the first values, from `context` alone.

        Raises:
            ConfigError: They cannot be had, as a prompt of a text without tokens.
        """

    def prompt(self) -> nn.Parameter | None:
        """Returns the soft prompt where it is one trainable tensor, (m, d_model): what ``init.parts=prompt`` takes."""
        return None

    def as_prompt(self) -> Tensor | None:
        """Returns the plain soft prompt that the whole method is in evaluation, (m, d_model) float32 without gradient.

        Prompt tuning with it answers exactly as this method does. None where there is no such prompt: the method does
        something else as well, or gives every example or task a prompt of its own.
        """
        return None

    def row_embedding(self) -> RowEmbedding | None:
        """Returns what the whole method is in evaluation, where that is a prompt and an update of text tokens by place.

        With it a server puts rows of several adapters into one batch (`dept_vl.tuners.row_embedding.embed_rows`). None
        for a method that does something else as well: its rows are answered in batches of their own. Here: the plain
        prompt, of a method that is one.
        """
        prompt = self.as_prompt()
        return None if prompt is None else RowEmbedding(prompt)

    def folded_embeddings(self, table: Tensor) -> Tensor | None:
        """Returns the word embeddings that make the method, in evaluation, a plain prompt (`prompt`) on another table.

        For a method that changes each text token by a function of its embedding alone. The table is for text that the
        method sees: prompt, visual tokens, answer cue and target are embedded as before.

        Args:
            table: The backbone's word embeddings, (vocabulary, d_model).

        Returns:
            (vocabulary, d_model) float32, each row what the method makes of it; None where it is no such function.
        """
        return None

    def facts(self) -> dict[str, Fact]:
        """Returns what there is to say of it beside its settings, by short names: m, r, s, d, l, sites, ..."""
        return {}

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns the backbone's input for prompt and text.

        Args:
            text_embeds: Frozen word embeddings, (batch, text, d_model), padding (if any) on the right.
            info: The forward pass; None for texts without padding, all of one task.

        Returns:
            (batch, prompt + text, d_model); text token i of the input is at index prompt + i.

        Raises:
            DataError: The text is longer than `max_source_length`.
        """
        return text_embeds

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns whether `embed` puts the same vectors before every text of a forward pass.

        A decoder-only model then reads them once for all (`dept_vl.models.language.shared_prompt`).
        """
        return False

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns what is done at places inside the backbone; the same objects at every call."""
        return {}

    def extra_keys(self, info: ForwardInfo) -> Mapping[Site, ExtraKeys]:
        """Returns what attentions read beside their own keys and values in one forward pass; see `AttentionShape`."""
        return {}

    def side_network(self) -> SideNetwork | None:
        """Returns the network that answers in the backbone's place, or None; the same object at every call.

        The backbone runs without gradients then: none reaches the embeddings, hooks and extra keys of a method.
        """
        return None

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns which of the backbone's parameters are trained themselves, in a copy of this model's own."""
        return ()

    def teacher(self) -> Teacher | None:
        """Returns who teaches the method while it trains; see `Teacher`."""
        return None

    @property
    def calibration_rows(self) -> int:
        """Rows of the training split that `calibrate` is told of, at most; 0 for a method that needs none."""
        return 0

    def calibrated_parameters(self, context: TunerContext) -> Collection[str]:
        """Returns the backbone's parameters, by name, whose squared gradients `calibrate` needs."""
        return ()

    def calibrate(self, context: TunerContext, squared_gradients: Mapping[str, Tensor]) -> None:
        """Sets first values that depend on the training data, once, before the first step of a run from the start.

        A run that is resumed or starts from another has its values already. Until then the values are those of
        `reset_parameters`.

        Args:
            context: As `reset_parameters` got it.
            squared_gradients: The `calibrated_parameters` to the sum, over `calibration_rows` rows, of the squared
                gradient of the frozen backbone's loss of that row's text, float32, the same in every process: the
                diagonal of the empirical Fisher information, up to its scale.
        """

    def auxiliary_loss(self, info: ForwardInfo) -> Tensor | None:
        """Returns what a method adds to the loss of every example while training, (batch,) or one number; or None.

        It is asked for after the backbone's forward pass and weighs as the example's own loss does.
        """
        return None

    def after_step(self, step: int, max_steps: int) -> None:
        """Is told after every update of the trainable tensors, their gradients still there.

        Args:
            step: Optimiser steps done, this one included.
            max_steps: Of the whole run.
        """

    def training_state(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds of the method beside the trainable tensors, by name.

        The frozen ones, and what only training goes on from, as running averages, or the prompts of teachers.
        """
        return self.frozen_state()

    @torch.no_grad()
    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `training_state` returned.

        Raises:
            CheckpointError: It is of another method, or other settings.
        """
        ours = self.training_state()
        shapes, expected = ({name: tuple(value.shape) for name, value in side.items()} for side in (state, ours))
        if shapes != expected:
            raise CheckpointError(f"holds {shapes} of a tuner, this run's {self.config.name!r} has {expected}")
        for name, tensor in ours.items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def start_from(self, tensors: Mapping[str, Tensor], source: TunerSettings) -> list[str]:
        """Takes the trained values of another tuner of this method.

        A method whose values can be adapted to other lengths or settings overrides this; here shapes must be equal.

        Args:
            tensors: The other tuner's, those of `trainable_state` and `frozen_state`.
            source: Its settings.

        Returns:
            What was adapted on the way, one sentence each.

        Raises:
            CheckpointError: Another method, or other shapes; both sides are named and nothing is changed.
        """
        self.check_method(source)
        theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        state = {**self.trainable_state(), **self.frozen_state()}
        ours = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if theirs != ours:
            names = sorted({**theirs, **ours})
            one = next(name for name in names if theirs.get(name) != ours.get(name))
            count = sum(theirs.get(name) != ours.get(name) for name in names)
            raise CheckpointError(
                f"the source has {theirs.get(one, 'nothing')} for {one}, this run has {ours.get(one, 'nothing')} "
                f"({count} of {len(names)} tensors differ); give the settings that the source was trained with"
            )
        for name, tensor in state.items():
            tensor.copy_(tensors[name])
        return []

    def without(self, groups: Collection[str]) -> Tuner:
        """Returns a tuner that acts as this one would if some of its groups were not there; this one stays as it is.

        Here: a tuner that does nothing, where no other trainable tensors are left; else a copy without the soft prompt
        (`prompt`; vectors of zeros would be read too), and with zeros in all other tensors of the groups, which is
        nothing for what is added, as an update, a bias or an adapter. Where zeros are not nothing, as of a factor, a
        method overrides this.

        Args:
            groups: Names as `param_groups` gives them. Tensors of the backbone itself are not its to leave out.
        """
        from dept_vl.tuners.left_out import without_groups

        return without_groups(self, groups)

    def check_method(self, source: TunerSettings) -> None:
        """Refuses the settings of another method.

        Raises:
            CheckpointError: Both methods are named.
        """
        if source.name != self.config.name:
            raise CheckpointError(
                f"the source was trained with {source.name!r}, this run has {self.config.name!r}; "
                "init.parts=prompt takes the soft prompt alone"
            )

    def trainable_state(self) -> dict[str, Tensor]:
        """Returns the trainable tensors by name."""
        return {name: parameter.detach() for name, parameter in self.named_parameters() if parameter.requires_grad}

    def frozen_state(self) -> dict[str, Tensor]:
        """Returns the tensors by name that are not trained and that settings and seed do not give: other runs' prompts.

        An adapter holds them beside the trained ones, so that it needs no other file. They are the method's persistent
        buffers and the parameters that it freezes; a buffer that is not persistent is made anew where it is needed.
        """
        trained = self.trainable_state()
        return {name: tensor.detach() for name, tensor in self.state_dict().items() if name not in trained}

    def saved_values(self) -> dict[str, Tensor]:
        """Returns trainable tensors, by name, that an adapter holds with other values than training goes on from."""
        return {}

    def recorded_settings(self) -> TunerSettings:
        """Returns the settings as an adapter file has them.

        They say what its tensors depend on, in numbers where a setting left it to the run, and hold no path.
        """
        return self.config

    def check_length(self, text_embeds: Tensor) -> None:
        """Refuses texts longer than the tuner was made for.

        Raises:
            DataError: `text_embeds` has more than `max_source_length` tokens.
        """
        length = text_embeds.shape[1]
        if length > self.max_source_length:
            raise DataError(
                f"a text of {length} tokens reached a tuner made for max_source_length={self.max_source_length}; "
                "shorten the text, or train with a larger data.max_source_length"
            )


def prepend_prompt(soft_prompt: Tensor | None, text_embeds: Tensor) -> Tensor:
    """Puts a soft prompt before every text of a batch (batch, text, d_model).

    Args:
        soft_prompt: (prompt, d_model), the same for all; or (batch, prompt, d_model), each example's own; or None.
        text_embeds: (batch, text, d_model).

    Returns:
        (batch, prompt + text, d_model).
    """
    if soft_prompt is None:
        return text_embeds
    prompt = soft_prompt.to(text_embeds.dtype).expand(text_embeds.shape[0], -1, -1)
    return torch.cat([prompt, text_embeds], dim=1)
