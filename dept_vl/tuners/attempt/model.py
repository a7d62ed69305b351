"""The computation of ATTEMPT."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError
from dept_vl.tuners.attempt.config import AttemptConfig
from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.precision import full_precision
from dept_vl.tuners.prompts.init import initial_prompt
from dept_vl.tuners.prompts.sources import check_size, last_names, read_prompts
from dept_vl.tuners.settings import TunerSettings

logger = logging.getLogger(__name__)

PADDING_ID = 0
"""T5's token of padding."""

_ATTENTION = ("attention_down.weight", "attention_up.weight", "attention_norm.weight", "attention_norm.bias")


class Attempt(Tuner):
    """[sum_j a_j P_j + P; text], with a of the text (Asai et al. 2022, section 3.2; ``modeling_t5.py`` of the release).

    P_1 .. P_t are trained prompts of other tasks, frozen; P is the task's own, and P_(t + 1) too. With x the maximum
    over the text's word embeddings, feature by feature, and p_j that over the rows of P_j,

        a = softmax_j(LayerNorm(W_up silu(W_down x)) . p_j / temperature)

    Trained on several tasks, each has a P and all share the attention (section 3.3). Visual tokens are not part of x.
    The prompt is the example's own, so there is no plain prompt to fold it into.

    Attributes:
        soft_prompts: P of each task, (tasks, num_virtual_tokens, d_model).
        sources: P_1 .. P_t, (sources, num_virtual_tokens, d_model).
        attention_down: W_down, d_model -> attention_width.
        attention_up: W_up, attention_width -> d_model.
        attention_norm: The LayerNorm.
        padding: The embedding of padding, (d_model,); read with ``text_maximum: padded`` alone.
    """

    config: AttemptConfig
    sources: Tensor
    padding: Tensor

    def __init__(self, config: AttemptConfig, context: TunerContext) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values.

        Raises:
            ConfigError: As `check_size`.
        """
        super().__init__(config, context)
        m, d, width = config.num_virtual_tokens, context.d_model, config.attention_width
        num_tasks = max(1, len(context.tasks))
        check_size(num_tasks + len(config.sources), m)
        self.soft_prompts = nn.Parameter(torch.zeros(num_tasks, m, d))
        self.register_buffer("sources", torch.zeros(len(config.sources), m, d))
        self.register_buffer("padding", torch.zeros(d), persistent=False)
        self.attention_down = nn.Linear(d, width, bias=False)
        self.attention_up = nn.Linear(width, d, bias=False)
        self.attention_norm = nn.LayerNorm(d)
        self.attention_norm.requires_grad_(config.train_norm)
        self.temperature = config.temperature_at(d)

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Reads the sources, starts every task's prompt alike, and draws the attention's matrices; its norm is 1 and 0.

        Raises:
            CheckpointError: As `read_prompts`.
        """
        generator = torch.Generator().manual_seed(context.seed)
        first = initial_prompt(self.config, context, self.num_virtual_tokens, generator)
        sources = read_prompts("tuner.sources", self.config.sources, context, self.num_virtual_tokens)
        if sources is not None:
            self.sources.copy_(sources)
            if self.config.target_start == "first-source":
                first = sources[0]
        if not self.config.sources:
            logger.warning("tuner.sources: names no trained run; without one ATTEMPT is prompt tuning with twice P")
        self.soft_prompts.copy_(first)
        for layer in (self.attention_down, self.attention_up):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * self.config.attention_std)
        self.attention_norm.weight.fill_(1)
        self.attention_norm.bias.zero_()
        if self.config.text_maximum == "padded":
            assert context.embed_tokens is not None  # first values are set on a real backbone alone
            self.padding.copy_(context.embed_tokens(torch.tensor(PADDING_ID)))

    def recorded_settings(self) -> AttemptConfig:
        """Returns the settings with the sources' last names; see `Tuner.recorded_settings`."""
        return replace(self.config, sources=last_names(self.config.sources))

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [each text's own prompt; text]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        with full_precision(text_embeds):
            prompts = self._prompts(text_embeds.float(), info)
        return prepend_prompt(prompts, text_embeds)

    def _prompts(self, text_embeds: Tensor, info: ForwardInfo | None) -> Tensor:
        """Returns (batch, num_virtual_tokens, d_model)."""
        tasks = text_embeds.new_zeros(len(text_embeds), dtype=torch.long)
        if info is not None and info.task_ids is not None:
            tasks = info.task_ids
        own = self.soft_prompts[tasks]  # (batch, m, d_model)
        peaks = self.sources.amax(dim=1).expand(len(own), -1, -1)  # (batch, sources, d_model)
        peaks = torch.cat([peaks, own.amax(dim=1, keepdim=True)], dim=1)  # (batch, sources + 1, d_model)
        weights = self.attention(self._text_peak(text_embeds, info), peaks)  # (batch, sources + 1)
        mixed = torch.einsum("bj,jmd->bmd", weights[:, :-1], self.sources)
        return mixed + (1 + weights[:, -1, None, None]) * own

    def attention(self, text_peak: Tensor, prompt_peaks: Tensor) -> Tensor:
        """Returns how much each prompt counts for a text, (batch, prompts), each row with the sum 1.

        Args:
            text_peak: x, (batch, d_model).
            prompt_peaks: p_j, (batch, prompts, d_model).
        """
        hidden = nn.functional.silu(self.attention_down(text_peak))
        query = self.attention_norm(self.attention_up(hidden))  # (batch, d_model)
        scores = torch.einsum("bd,bjd->bj", query, prompt_peaks) / self.temperature
        return torch.softmax(scores, dim=-1)

    def _text_peak(self, text_embeds: Tensor, info: ForwardInfo | None) -> Tensor:
        """Returns the maximum of each text's embeddings, feature by feature, (batch, d_model)."""
        if info is None:
            num_tokens = text_embeds.new_full((len(text_embeds), 1), text_embeds.shape[1])
            peak = text_embeds.amax(dim=1)
        else:
            num_tokens = info.text_mask.sum(dim=1, keepdim=True)
            is_padding = info.text_mask[:, :, None] == 0
            peak = text_embeds.masked_fill(is_padding, torch.finfo(text_embeds.dtype).min).amax(dim=1)
        if self.config.text_maximum == "text":
            return peak
        return torch.where(num_tokens < self.max_source_length, torch.maximum(peak, self.padding), peak)

    @torch.no_grad()
    def start_from(self, tensors: Mapping[str, Tensor], source: TunerSettings) -> list[str]:
        """Takes the attention of another run, as the released code pre-trains it on the sources' tasks.

        The prompts of the tasks start as configured: they are other tasks. Sources may be other runs, and as many as
        they like. See `Tuner.start_from`.
        """
        self.check_method(source)
        ours = self.state_dict()
        given = {name: tuple(tensors[name].shape) for name in _ATTENTION if name in tensors}
        wanted = {name: tuple(ours[name].shape) for name in _ATTENTION}
        if given != wanted:
            raise CheckpointError(
                f"the source's attention has {given}, this run's {wanted}; set tuner.attention_width to the source's"
            )
        for name in _ATTENTION:
            ours[name].copy_(tensors[name])
        return ["the attention is taken; prompts of the tasks and of the sources are this run's own"]

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``soft_prompt`` and ``attention``."""
        layers = (self.attention_down, self.attention_up, self.attention_norm)
        attention = tuple(p for layer in layers for p in layer.parameters() if p.requires_grad)
        return [
            ParamGroup("soft_prompt", (self.soft_prompts,), self.config.lr),
            ParamGroup("attention", attention, self.config.attention_lr),
        ]

    def facts(self) -> dict[str, Fact]:
        """Returns the sizes, and how many prompts are mixed in."""
        return {
            "m": self.num_virtual_tokens,
            "h": self.config.attention_width,
            "s": self.max_source_length,
            "d": self.soft_prompts.shape[2],
            "sources": len(self.sources),
            "tasks": len(self.soft_prompts),
        }
