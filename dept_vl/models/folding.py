"""A trained method as plain weights, a plain prompt, or both, where that is exact in evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.places import place_bias, place_matrix
from dept_vl.tuners import PromptTuningConfig, TunerConfig
from dept_vl.tuners.base import Tuner
from dept_vl.tuners.bitfit.config import BitFitConfig
from dept_vl.tuners.folded.config import FoldedConfig
from dept_vl.tuners.places.hooks import LinearMap
from dept_vl.tuners.places.sites import LINEAR_PARTS, NORM_PARTS, Site
from dept_vl.tuners.stack.config import StackConfig

_INSIDE = {
    "extra_keys": "its keys and values stand before an attention's own, where no plain model has any",
    "side_network": "a network of its own answers in the backbone's place",
}
"""Ways to act that no plain weights or prompt can do -> why."""

_MATRICES = (*LINEAR_PARTS, "lm_head")
"""Parts that are a matrix; norms are a scale."""

_PROMPT, _BIASES = "prompt-tuning", "bitfit"


@dataclass
class Folding:
    """What a method is in plain terms.

    Attributes:
        maps: The linear maps and norms that it changes, each with what it becomes; a norm is a diagonal matrix.
        prompt: The plain soft prompt, (m, d_model); m may be 0.
        encoder_table: The word embeddings of the text, (vocabulary, d_model), where they are others than those of
            answers; or None.
        trains_backbone: Whether tensors of the backbone itself have been trained.
        biases: What `write_into` finds no place for, by the place's name: the backbone's class has no bias there.
    """

    prompt: Tensor
    maps: dict[Site, LinearMap] = field(default_factory=dict)
    encoder_table: Tensor | None = None
    trains_backbone: bool = False
    biases: dict[str, Tensor] = field(default_factory=dict)

    @property
    def changes_weights(self) -> bool:
        """Whether the plain backbone is another than the frozen one."""
        return self.trains_backbone or self.encoder_table is not None or bool(self.maps)

    def settings(self) -> TunerConfig:
        """Returns the settings of what is left for a tuner to do."""
        left: dict[str, Any] = {}
        if len(self.prompt):
            left[_PROMPT] = PromptTuningConfig(num_virtual_tokens=len(self.prompt))
        if self.biases:
            left[_BIASES] = BitFitConfig()
        if len(left) == 2:
            return StackConfig(parts=left)
        return cast("TunerConfig", next(iter(left.values()), FoldedConfig()))

    @torch.no_grad()
    def fill(self, tuner: Tuner) -> None:
        """Sets the values of the tuner that `settings` describe."""
        parts: dict[str, Any] = dict(tuner.parts.items()) if isinstance(tuner.config, StackConfig) else {}  # type: ignore[union-attr,operator]
        parts = parts or {tuner.config.name: tuner}
        if _PROMPT in parts:
            parts[_PROMPT].soft_prompt.copy_(self.prompt)
        if _BIASES in parts:
            for key, bias in parts[_BIASES].biases.added.items():
                bias.copy_(self.biases.get(key, torch.zeros_like(bias)))


@torch.no_grad()
def fold(model: AdaptedModel) -> Folding:
    """Returns what a method is in plain terms, in evaluation.

    Args:
        model: In evaluation mode, its backbone in float32 where the method changes weights.

    Raises:
        CheckpointError: Part of it has no plain form, or all of it is plain already; the message says which part, and
            why.
    """
    backbone = model.backbone
    folding = Folding(prompt=torch.zeros(0, backbone.d_model, device=backbone.word_embeddings.device))
    folding.trains_backbone = any(p.requires_grad for p in backbone.parameters())
    table = backbone.source_table
    for name, part in _parts(model.tuner).items():
        for act, why in _INSIDE.items():
            if getattr(type(part), act, None) is not getattr(Tuner, act, None):
                raise _cannot(name, why)
        if type(part).embed is not Tuner.embed:
            table = _fold_text(name, part, table, folding)
        _fold_sites(name, part, backbone, folding)
    if table is not backbone.source_table:
        if model.backbone.num_layers[1] is None:
            raise _cannot(
                model.tuner.config.label,
                "it changes the embeddings of the text alone, and a decoder-only model reads answers with them too",
            )
        folding.encoder_table = table
    _settle_biases(backbone, folding)
    if not folding.changes_weights and _is_plain(model.tuner):
        why = f"a plain {backbone.family} has no biases there" if folding.biases else "it is plain already"
        raise _cannot(model.tuner.config.label, why)
    return folding


@torch.no_grad()
def write_into(backbone: Backbone[Any], folding: Folding) -> Backbone[Any]:
    """Returns a backbone with the plain weights, all but the text's own word embeddings; the given one stays as it is.

    Args:
        backbone: The run's, in float32.
        folding: What `fold` made of the run.
    """
    shapes = backbone.tuner_context(1).sites
    names = {shapes[site].weight for site in folding.maps} | {shapes[site].bias for site in folding.maps}
    twin = backbone.private_copy({name for name in names if name is not None})
    for site, linear in folding.maps.items():
        place = twin.places[site]
        if site.part in _MATRICES:
            place_matrix(place).copy_(linear.weight)
        else:
            cast(Any, place.module).weight.copy_(linear.weight.diagonal())
        bias = place_bias(place)
        if bias is not None:
            assert linear.bias is not None  # it was there before
            bias.copy_(linear.bias)
    return twin


def _parts(tuner: Tuner) -> dict[str, Tuner]:
    if isinstance(tuner.config, StackConfig):
        return cast("dict[str, Tuner]", dict(tuner.parts.items()))  # type: ignore[union-attr,operator]
    return {tuner.config.name: tuner}


def _is_plain(tuner: Tuner) -> bool:
    """Returns whether what would be left is what is there."""
    return all(part.config.name in (_PROMPT, _BIASES, FoldedConfig().name) for part in _parts(tuner).values())


def _cannot(part: str, why: str) -> CheckpointError:
    return CheckpointError(f"cannot be folded: {part!r}: {why}")


def _fold_text(name: str, part: Tuner, table: Tensor, folding: Folding) -> Tensor:
    """Notes a part's prompt and returns the word embeddings as it leaves them."""
    prompt = part.as_prompt()
    if prompt is None:
        changed = part.folded_embeddings(table)
        if changed is None:
            raise _cannot(
                name, part.config.unfoldable or "it does more to the text than a prompt that is the same for all does"
            )
        table, trained = changed, part.prompt()
        prompt = folding.prompt[:0] if trained is None else trained.detach()
    folding.prompt = torch.cat([folding.prompt, prompt.float()])
    return table


def _fold_sites(name: str, part: Tuner, backbone: Backbone[Any], folding: Folding) -> None:
    """Notes what a part makes of the places that it acts at."""
    for site, hook in part.site_hooks().items():
        before = folding.maps.get(site) or _plain_map(backbone, site)
        after = None if before is None else hook.fold(before)
        if after is None or after.narrow:
            raise _cannot(name, f"what it does at {site} is no linear map")
        folding.maps[site] = after


def _plain_map(backbone: Backbone[Any], site: Site) -> LinearMap | None:
    """Returns what a place is in the backbone; a norm's scale as a diagonal matrix; None for what is no one map."""
    place = backbone.places[site]
    if site.part in _MATRICES:
        return LinearMap(place_matrix(place), place_bias(place))
    if site.part in NORM_PARTS:
        return LinearMap(cast(Any, place.module).weight.detach().diag(), place_bias(place))
    return None


def _settle_biases(backbone: Backbone[Any], folding: Folding) -> None:
    """Takes out the biases that the backbone's class has no place for, and maps that are as they were without them.

    Raises:
        CheckpointError: A norm would be no norm any more, or an output matrix that is the word embeddings is changed.
    """
    for site, linear in list(folding.maps.items()):
        before = _plain_map(backbone, site)
        assert before is not None  # it was folded into
        is_norm = site.part in NORM_PARTS
        is_same = torch.equal(before.weight, linear.weight)
        if is_norm and not torch.equal(linear.weight.diagonal().diag(), linear.weight):
            raise _cannot(str(site), "a norm would be no norm any more")
        if site.part == "lm_head" and not is_same and _is_tied(backbone):
            raise _cannot(str(site), "the output matrix is the word embeddings, which would change too")
        if before.bias is None and linear.bias is not None:
            folding.biases[site.key] = linear.bias
        if is_same and before.bias is None:
            del folding.maps[site]


def _is_tied(backbone: Backbone[Any]) -> bool:
    return backbone.model.lm_head.weight is backbone.word_embeddings
