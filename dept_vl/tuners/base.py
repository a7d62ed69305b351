"""What a method offers: the places where it acts on a backbone, and its trainable tensors by name and group.

A method acts in any of four ways, and the base class does nothing in each: on the embeddings of the text
(`Tuner.embed`), on what comes out at places inside the backbone (`Tuner.site_hooks`), by keys and values that its
attentions read beside their own (`Tuner.extra_keys`), or by training tensors of the backbone itself
(`Tuner.trained_backbone_parameters`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError, DataError
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.settings import TunerSettings
from dept_vl.tuners.sites import Site
from dept_vl.tuners.teacher import Teacher

Fact = int | float | str
"""What is said of a built tuner, in reports, model cards and adapter files."""


@dataclass(frozen=True)
class ForwardInfo:
    """One forward pass, as every place where a method acts sees it.

    Attributes:
        text_mask: (batch, text), 1 for text and 0 for padding on the right. In beam search a decoder's hooks see
            ``beams`` rows for each of these (`for_rows`).
        num_virtual_tokens: Prompt tokens before the text.
        task_ids: (batch,) int64, each example's task as its place in `TunerContext.tasks`; None: all of the first.
        num_visual_tokens: Visual tokens after the text.
        records: What a method noted at one place for another, by keys of its own; empty at the start of every pass.
    """

    text_mask: Tensor
    num_virtual_tokens: int
    task_ids: Tensor | None = None
    num_visual_tokens: int = 0
    records: dict[Hashable, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def for_rows(self, per_example: Tensor, num_rows: int) -> Tensor:
        """Returns what belongs to each example, (batch, ...), for the rows of a decoder, (num_rows, ...).

        In beam search the beams of one example stand one after the other.
        """
        repeats = num_rows // len(per_example)
        return per_example if repeats == 1 else per_example.repeat_interleave(repeats, dim=0)


@dataclass(frozen=True)
class NarrowMap:
    """U f(x) beside a linear map, where f has few outputs and need not be linear: LoRA's A dropout(x).

    Attributes:
        reduce: f, from (..., inputs) to (..., narrow).
        expand: U, (outputs, narrow).
    """

    reduce: Callable[[Tensor], Tensor]
    expand: Tensor


@dataclass(frozen=True)
class LinearMap:
    """W x + b, and narrow maps of the same input added to it.

    Attributes:
        weight: W, (outputs, inputs).
        bias: b, (outputs,), or None.
        narrow: What is added.
    """

    weight: Tensor
    bias: Tensor | None = None
    narrow: tuple[NarrowMap, ...] = ()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns (..., outputs)."""
        output = nn.functional.linear(inputs, self.weight, self.bias)
        for narrow in self.narrow:
            output = output + nn.functional.linear(narrow.reduce(inputs), narrow.expand)
        return output


class SiteHook(ABC):
    """What a method does at one place of the backbone."""

    @abstractmethod
    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor | None:
        """Returns what comes out there instead of `output`, or None to leave it.

        Args:
            inputs: What went in, (..., inputs of the site).
            output: What the backbone made of it, (..., outputs of the site).
            info: The forward pass.
        """

    def fold(self, linear: LinearMap) -> LinearMap | None:
        """Returns what a map becomes by this hook, in every detail; None if it is no such map any more.

        A backbone may then compute with the map instead of calling module and hook
        (`dept_vl.models.language.cross_attention`).
        """
        return None


class HookChain(SiteHook):
    """Several hooks at one place, one after the other."""

    def __init__(self, hooks: Sequence[SiteHook]) -> None:
        """Takes the hooks in their order."""
        self._hooks = tuple(hooks)

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        """Lets each hook have what the one before it left."""
        for hook in self._hooks:
            changed = hook(inputs, output, info)
            output = output if changed is None else changed
        return output

    def fold(self, linear: LinearMap) -> LinearMap | None:
        """Folds one hook after the other; None as soon as one cannot be."""
        folded: LinearMap | None = linear
        for hook in self._hooks:
            folded = None if folded is None else hook.fold(folded)
        return folded


def merge_hooks(*sides: Mapping[Site, SiteHook]) -> dict[Site, SiteHook]:
    """Returns the hooks of several sides, those at one place in a chain."""
    merged: dict[Site, list[SiteHook]] = {}
    for side in sides:
        for site, hook in side.items():
            merged.setdefault(site, []).append(hook)
    return {site: hooks[0] if len(hooks) == 1 else HookChain(hooks) for site, hooks in merged.items()}


@dataclass(frozen=True)
class ExtraKeys:
    """What an attention reads before its own keys and values; it has no position.

    Attributes:
        keys: (1 or batch, extra, width of the attention's k).
        values: (1 or batch, extra, width of its v).
    """

    keys: Tensor
    values: Tensor


def merge_extra_keys(*sides: Mapping[Site, ExtraKeys]) -> dict[Site, ExtraKeys]:
    """Returns the extra keys of several sides, those at one attention one after the other."""
    merged: dict[Site, ExtraKeys] = {}
    for side in sides:
        for site, extra in side.items():
            if (before := merged.get(site)) is not None:
                extra = ExtraKeys(_join(before.keys, extra.keys), _join(before.values, extra.values))
            merged[site] = extra
    return merged


def _join(one: Tensor, other: Tensor) -> Tensor:
    """Joins (1 or batch, extra, width) along `extra`."""
    batch = max(len(one), len(other))
    return torch.cat([one.expand(batch, -1, -1), other.expand(batch, -1, -1)], dim=1)


@dataclass(frozen=True)
class ParamGroup:
    """Trainable tensors that share a learning rate.

    Attributes:
        name: As reports and metrics call it.
        parameters: Its tensors.
        lr: Peak rate; None for a group whose rate is a setting of the optimiser's.
        weight_decay: None for the optimiser's own.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float | None = None
    weight_decay: float | None = None


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

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns what is done at places inside the backbone; the same objects at every call."""
        return {}

    def extra_keys(self, info: ForwardInfo) -> Mapping[Site, ExtraKeys]:
        """Returns what attentions read beside their own keys and values in one forward pass; see `AttentionShape`."""
        return {}

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns which of the backbone's parameters are trained themselves, in a copy of this model's own."""
        return ()

    def teacher(self) -> Teacher | None:
        """Returns who teaches the method while it trains; see `Teacher`."""
        return None

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
            raise CheckpointError(f"the source has {theirs}, this run has {ours}")
        for name, tensor in state.items():
            tensor.copy_(tensors[name])
        return []

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

    def frozen_state(self, *, in_training: bool = False) -> dict[str, Tensor]:
        """Returns the tensors by name that are not trained and that settings and seed do not give: other runs' prompts.

        An adapter holds them beside the trained ones, so that it needs no other file. They are the method's persistent
        buffers and the parameters that it freezes; a buffer that is not persistent is made anew where it is needed.

        Args:
            in_training: Those too that only training needs: a checkpoint holds them, an adapter does not.
        """
        trained = self.trainable_state()
        return {name: tensor.detach() for name, tensor in self.state_dict().items() if name not in trained}

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
