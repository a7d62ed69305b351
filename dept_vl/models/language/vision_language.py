"""A vision-language model: a decoder-only model that reads the images of its own image encoder among the text.

[padding; template; prompt; image; text; template; target]. The source is given to the model as token ids, an ordinary
token in every place of the prompt, and a hook on its word embeddings puts prompt, edited text and image tokens there,
so that all else is the model's own. ``docs/decisions/0014-one-hook-for-vision-language-models.md`` says why.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.image_processing import ImageProcessing
from dept_vl.data.image_rows import ImageRows, Record, VisualFeatures
from dept_vl.data.image_template import Template, read_template
from dept_vl.data.text_codec import Frame, TextCodec
from dept_vl.data.vision_codec import VisionLanguageTextCodec
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.language.causal import CausalBackbone
from dept_vl.models.language.image_records import make_records
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.segments import CausalInput
from dept_vl.models.language.shared_images import RowLengths, divide
from dept_vl.models.language.shared_prompt import SharedPrompt
from dept_vl.models.language.source_hook import ORDINARY, Kind, VisionLanguageInput, places_of_row, reading, token_types
from dept_vl.models.language.vision_family import VisionLanguageFamily
from dept_vl.models.weights_hash import hash_together
from dept_vl.tuners.places.sites import Part


class VisionLanguageBackbone(CausalBackbone):
    """One stack over [padding; template; prompt; image; text; template; target].

    Where rows have a prompt or images in common, those stand before them and are read once
    (`dept_vl.models.language.shared_images`); a family says by `DecoderFamily.has_plain_attention` that this gives the
    same numbers.

    The image encoder and what connects it are frozen with the rest, and stay in evaluation mode.

    Attributes:
        layout: What the family is; see `causal_class`.
        processor: transformers' processor of the checkpoint; None for a model that is only counted.
    """

    codec_class = VisionLanguageTextCodec
    layout: ClassVar[VisionLanguageFamily]
    processor: Any = None

    @staticmethod
    def text_config(config: PretrainedConfig) -> PretrainedConfig:
        """See `Backbone.text_config`."""
        text: PretrainedConfig = config.text_config
        return text

    @staticmethod
    def is_output_tied(config: PretrainedConfig, stored: Mapping[str, Any]) -> bool | None:
        """Returns None: the setting lies at the top or below it, by the release; see `Backbone.is_output_tied`."""
        return None

    @classmethod
    def loaded_names(cls, stored: set[str], model: PreTrainedModel, missing: Collection[str]) -> set[str]:
        """Returns the model's own names, which releases do not have; see `Backbone.loaded_names`."""
        return set(model.state_dict()) - set(missing)

    def template(self, system_prompt: str | None = None) -> Template:
        """Returns how a user's turn is written.

        Raises:
            ConfigError: As `read_template`; or a system prompt for a family that has no room for one.
        """
        if self.layout.own_template is None:
            return read_template(self.processor, system_prompt)
        if system_prompt is not None:
            raise ConfigError(f"model.system_prompt: {self.family} has no system's turn; leave it out")
        return self.layout.own_template

    def new_codec(
        self, tokenizer: PreTrainedTokenizerBase, answer_cue: str | None, *, system_prompt: str | None, **_form: Any
    ) -> TextCodec:
        """Returns the codec of the processor's template; see `Backbone.new_codec`."""
        return VisionLanguageTextCodec(tokenizer, self.template(system_prompt), answer_cue)

    def image_processing(self, system_prompt: str | None = None) -> ImageProcessing:
        """Returns what turns an image into what `records` takes.

        Raises:
            ConfigError: As `template`.
        """
        names = inspect.signature(self.model.get_image_features).parameters
        own = self.layout.own_template
        return ImageProcessing(
            self.processor, self.template(system_prompt).image, self.image_token_id, names, has_markers=own is None
        )

    def train(self, mode: bool = True) -> VisionLanguageBackbone:
        """Leaves all but the language model in evaluation mode: features are the same in training and after it."""
        super().train(mode)
        for module in self.model.base_model.children():
            module.train(mode and module is self._text_model)
        return self

    def block_parts(self, number: int) -> Mapping[Part, str | tuple[str, int, int]]:
        """See `CausalBackbone.block_parts`."""
        config = self.text_config(self.model.config)
        layer_types = getattr(config, "layer_types", None) or [""] * config.num_hidden_layers
        return self.layout.parts_of(config.model_type, layer_types[number])

    def image_parameters(self) -> set[str]:
        """Returns the names of the parameters of image encoder and connector, in `model`."""
        return {name for name, tensor in self._image_tensors().items() if isinstance(tensor, nn.Parameter)}

    @cached_property
    def image_weights_sha256(self) -> str:
        """The sha256 of image encoder and connector as they were loaded, see `Backbone.image_weights_sha256`."""
        return hash_together(tensor for tensor in self._image_tensors().values() if tensor.is_floating_point())

    def _image_tensors(self) -> dict[str, Tensor]:
        """Returns what image encoder and connector have, by the names in `model`."""
        text = {id(tensor) for tensor in self._text_model.state_dict(keep_vars=True).values()}
        tensors = self.model.base_model.state_dict(prefix=f"{self.model.base_model_prefix}.", keep_vars=True)
        return {name: tensor for name, tensor in tensors.items() if id(tensor) not in text}

    @property
    def connector(self) -> nn.Module | None:
        """The module between image encoder and language model; None where it is inside the encoder or not the last."""
        return self._find(self.layout.connector[0]) if self.layout.is_connector_last else None

    @property
    def image_token_id(self) -> int:
        """The token that stands for one image token."""
        return int(self.model.config.image_token_id)

    def records(self, images: ImageRows) -> tuple[tuple[Record, ...], ...]:
        """Returns what every image becomes for the language model; records stay as they are.

        Raises:
            DataError: An image becomes another number of tokens than its processor made room for.
        """
        return make_records(self.model, images, self.image_token_id, self.layout.image_dim, self.connector)

    def join_images(
        self,
        prompt_and_text_embeds: Tensor,
        text_ids: Tensor,
        text_mask: Tensor,
        images: VisualFeatures | None,
        frame: Frame,
        shared: SharedPrompt | None = None,
    ) -> VisionLanguageInput:
        """Joins template, prompt, images and text; a row may have no image, and then has none of its markers either.

        Args:
            prompt_and_text_embeds: (batch, prompt + text, d_model).
            text_ids: (batch, text), padded on the right.
            text_mask: (batch, text), 1 for text and 0 for padding.
            images: Of every row, as many as the text's; None for none.
            frame: The tokens of the template.
            shared: The prompt that all rows have in common; None where each may have its own.

        Raises:
            DataError: Features of another image encoder, images of another number of rows, or as `records`.
        """
        num_rows, device = len(text_ids), text_ids.device
        if images is None:
            images = ImageRows(((),) * num_rows)
        if not isinstance(images, ImageRows) or len(images) != num_rows:
            given = f"{len(images)} rows of images" if isinstance(images, ImageRows) else "features of another encoder"
            raise DataError(f"a {self.family} backbone reads {num_rows} texts, and got {given}")
        records = self.records(images)
        num_virtual_tokens = prompt_and_text_embeds.shape[1] - text_mask.shape[1]
        rows = [
            places_of_row(ids[: int(length)], row, frame, num_virtual_tokens, self.image_token_id)
            for ids, length, row in zip(text_ids, text_mask.sum(dim=1), records, strict=True)
        ]
        total = max(len(ids) for ids, _ in rows)
        input_ids = text_ids.new_full((num_rows, total), ORDINARY)
        kinds = text_ids.new_full((num_rows, total), Kind.PAD)
        for number, (ids, kind) in enumerate(rows):
            input_ids[number, total - len(ids) :], kinds[number, total - len(ids) :] = ids, kind
        is_edited = (kinds == Kind.PROMPT) | (kinds == Kind.TEXT)
        is_read = nn.functional.pad(text_mask, (num_virtual_tokens, 0), value=1).bool()  # (batch, prompt + text)
        embeds = self.embed_tokens(input_ids.where(kinds != Kind.IMAGE, ORDINARY)).float()
        embeds = embeds.masked_scatter(is_edited[:, :, None], prompt_and_text_embeds.float()[is_read])
        if tokens := [record.tokens.to(device) for row in records for record in row]:
            embeds = embeds.masked_scatter((kinds == Kind.IMAGE)[:, :, None], torch.cat(tokens).float())
        mask = (kinds != Kind.PAD).long()
        whole = VisionLanguageInput(
            embeds.to(self.word_embeddings.dtype), mask, has_padding=any(len(ids) < total for ids, _ in rows),
            position_ids=self._positions(input_ids, kinds, mask, records), input_ids=input_ids, kinds=kinds,
            records=records,
        )  # fmt: skip
        totals = [len(ids) for ids, _ in rows]
        return replace(whole, divided=self._divided(whole, totals, frame, num_virtual_tokens, shared))

    def _divided(
        self,
        whole: VisionLanguageInput,
        totals: Sequence[int],
        frame: Frame,
        num_virtual_tokens: int,
        shared: SharedPrompt | None,
    ) -> VisionLanguageInput | None:
        """Returns rows behind what they have in common; None where each is to read all of its own.

        They have one beginning, with and without images, and each has a token of its own behind it. Processes that have
        a share of the weights each leave it at whole rows without gradient: how often they would run the model depends
        on their rows.

        Args:
            whole: The rows.
            totals: Their tokens.
            frame: As `join_images`.
            num_virtual_tokens: Of the prompt.
            shared: As `join_images`.
        """
        is_uneven = self.is_sharded and not torch.is_grad_enabled()
        if shared is None or is_uneven or not self.may_share(shared, len(totals)):
            return None
        of_rows = zip(totals, whole.records, strict=True)
        lengths = [RowLengths.of(total, row, frame, num_virtual_tokens) for total, row in of_rows]
        beginnings = {frame.head if row else frame.text_head for row in whole.records}
        if len(beginnings) > 1 or not lengths[0].first or not all(one.own for one in lengths):
            return None
        return divide(
            whole, lengths, self.score_dtype,
            images_see_themselves=self.layout.token_types == "image", kept=self.kept_for(shared),
        )  # fmt: skip

    def _as_read(self, joint: VisionLanguageInput, more: int) -> VisionLanguageInput:
        """Returns rows behind what they have in common, or whole where a block would not see all of that.

        Args:
            joint: The source.
            more: Tokens that come after it.
        """
        is_within = self.window is None or joint.kinds.shape[1] + more <= self.window
        return joint.divided if joint.divided is not None and is_within else joint

    def _positions(self, input_ids: Tensor, kinds: Tensor, mask: Tensor, records: Sequence[Sequence[Record]]) -> Tensor:
        """Returns the position of every place in its own unpadded sequence, see `VisionLanguageInput`."""
        if not self.layout.has_grid_positions:
            return (mask.cumsum(dim=1) - 1).clamp(min=0)
        grids = [record.grid.to(mask.device) for row in records for record in row if record.grid is not None]
        positions: Tensor
        positions, _ = self.model.base_model.get_rope_index(
            input_ids,
            mm_token_type_ids=(kinds == Kind.IMAGE).int(),
            image_grid_thw=torch.stack(grids) if grids else None,
            attention_mask=mask,
        )
        return positions

    def logits(self, joint: VisionLanguageInput, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Returns (batch, target, vocabulary); see `Backbone.logits`.

        The source's last token predicts the first label, so the last label is not read.
        """
        read = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, ORDINARY)  # (batch, target - 1)
        self._check_length(joint, read.shape[1])
        if (rows := self._as_read(joint, read.shape[1])).before:
            return super().logits(rows, labels)
        return self._read_on(joint, read, torch.arange(1, labels.shape[1], device=labels.device))

    def run_generation(  # type: ignore[override]
        self,
        joint: VisionLanguageInput,
        *,
        num_beams: int,
        max_new_tokens: int,
        observer: LogitsProcessor | None = None,
        **settings: Any,
    ) -> Any:
        """See `Backbone.run_generation`."""
        self._check_length(joint, max_new_tokens - 1)
        rows = self._as_read(joint, max_new_tokens - 1)
        with self.beside(rows), reading(self.model, self._text_model, rows):
            generated: Any = self.model.generate(
                input_ids=rows.input_ids,
                attention_mask=rows.attention_mask,
                position_ids=rows.position_ids,  # which transformers counts on from
                **token_types(rows.kinds, self.layout.token_types),
                generation_config=self.search_config(num_beams, max_new_tokens, **settings),
                logits_processor=LogitsProcessorList([observer] if observer else []),
                synced_gpus=self.is_sharded,
            )
        generated.sequences = generated.sequences[:, rows.input_ids.shape[1] :]
        return generated

    def trie_logits(self, joint: VisionLanguageInput, trie: LabelTrie) -> Tensor:  # type: ignore[override]
        """Returns (batch, 1 + nodes, vocabulary); see `Backbone.trie_logits`.

        Where the family's masks are more than causal, or its state is not only keys and values, every label is read by
        itself behind the source; but not where all that is not causal stands before the rows and was read once.
        """
        self._check_length(joint, trie.longest)
        if (rows := self._as_read(joint, trie.longest)).before:
            return super().trie_logits(rows, trie)
        if not self.layout.has_one_pass_labels:
            return self._label_by_label(joint, trie)
        mask = self._additive_mask(joint, self._tree(joint, trie))
        return self._read_on(joint, trie.tokens.expand(len(joint.kinds), -1), trie.depths[1:], mask)

    def _label_by_label(self, joint: VisionLanguageInput, trie: LabelTrie) -> Tensor:
        """Returns the logits of `trie_logits` by one forward for each node that no other goes on from."""
        ancestors = trie.ancestor_mask
        is_inner = ancestors.sum(dim=0) > 1  # others than the node itself go on from it
        found: dict[int, Tensor] = {}
        for leaf in (~is_inner).nonzero().flatten().tolist():
            path = ancestors[leaf].nonzero().flatten().tolist()  # from the root on: a node comes after its ancestors
            tokens = trie.tokens[[node - 1 for node in path[1:]]].expand(len(joint.kinds), -1)
            logits = self._read_on(joint, tokens, trie.depths[path[1:]])
            found.update(zip(path, logits.unbind(dim=1), strict=True))
        return torch.stack([found[node] for node in range(len(trie.depths))], dim=1)

    def source_embedding(self, joint: VisionLanguageInput) -> Tensor:  # type: ignore[override]
        """Returns the last hidden state, after the final norm, at the source's last token, (batch, d_model)."""
        if (rows := self._as_read(joint, 0)).before:
            return super().source_embedding(rows)
        with reading(self.model, self._text_model, joint):
            states: Tensor = self.model.base_model(
                input_ids=joint.input_ids,
                attention_mask=joint.attention_mask,
                position_ids=joint.position_ids,
                **token_types(joint.kinds, self.layout.token_types),
                use_cache=False,
            ).last_hidden_state
        return states[:, -1]

    def _read_on(
        self, joint: VisionLanguageInput, tokens: Tensor, offsets: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Runs the model on the source and more tokens.

        Args:
            joint: The source.
            tokens: (batch, more) ids.
            offsets: (more,) positions of those, counted from the source's last token.
            mask: (batch, 1, total, total) additive; None for the model's own.

        Returns:
            (batch, 1 + more, vocabulary): the logits at the source's last token and at the others.
        """
        more, positions = tokens.shape[1], joint.position_ids
        after = (positions[..., -1:] + offsets).expand(*positions.shape[:-1], more)
        with reading(self.model, self._text_model, joint):
            logits: Tensor = self.model(
                input_ids=torch.cat([joint.input_ids, tokens], dim=1),
                attention_mask=nn.functional.pad(joint.attention_mask, (0, more), value=1) if mask is None else mask,
                position_ids=torch.cat([positions, after], dim=-1),
                **token_types(nn.functional.pad(joint.kinds, (0, more), value=Kind.TARGET), self.layout.token_types),
                logits_to_keep=1 + more,
                use_cache=False,
            ).logits
        return logits

    def check_row(
        self, frame: Frame, num_virtual_tokens: int, num_text_tokens: int, images: Sequence[Tensor], *, target: int
    ) -> None:
        """Refuses one row that is longer with its target than the model's positions.

        Args:
            frame: The tokens of the template.
            num_virtual_tokens: m of the prompt.
            num_text_tokens: What the user says.
            images: The tokens that stand for each of its images, `Record.ids`.
            target: Tokens of the target that are read.

        Raises:
            DataError: It is.
        """
        head = len(frame.head) + len(frame.between) if images else len(frame.text_head)
        places = sum(map(len, images))
        tokens = sum(int((ids == self.image_token_id).sum()) for ids in images)
        self._check_positions(head + num_virtual_tokens + places + num_text_tokens + len(frame.tail), tokens, target)

    def _check_length(self, joint: CausalInput, target: int) -> None:
        """Refuses an input that is longer than the model's positions, padding counted."""
        assert isinstance(joint, VisionLanguageInput)
        if self.max_positions is not None:
            images = int((joint.kinds == Kind.IMAGE).sum(dim=1).max())
            self._check_positions(joint.kinds.shape[1], images, target)

    def _check_positions(self, source: int, images: int, target: int) -> None:
        if self.max_positions is not None:
            smaller = "give smaller or fewer images (its processor's settings say how small) or "
            self.max_positions.check(self.family, source, target, f", {images} of them of images,", smaller)
