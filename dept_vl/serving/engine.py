"""From rows that fit one batch to their answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from dept_vl.data.collator import Batch, Example, collate
from dept_vl.inference.answer import Answer
from dept_vl.models.language.joint import JointInput
from dept_vl.runs.session import Session
from dept_vl.serving.adapters import AskedRow, Picture
from dept_vl.serving.image_cache import LeastRecentlyUsed
from dept_vl.serving.metrics import Metrics
from dept_vl.serving.mixed import mixed_joint_input


class Engine:
    """Answers batches of rows, of one adapter or of several; one thread at a time."""

    def __init__(
        self, session: Session, device: torch.device, cache: LeastRecentlyUsed[Tensor], metrics: Metrics
    ) -> None:
        """Takes what it shares with whoever prepares rows.

        Args:
            session: Its lock is held while the frozen models answer.
            device: Where they are.
            cache: Features of images, by `Picture.key`.
            metrics: Told of batches and images.
        """
        self._session = session
        self._device = device
        self._cache = cache
        self._metrics = metrics

    @torch.no_grad()
    def answer(self, rows: Sequence[AskedRow]) -> list[Answer]:
        """Returns the answer to each row.

        Args:
            rows: At least one; all have one `AskedRow.batch_key`.
        """
        self._metrics.add_batch(len(rows), len({id(row.adapter) for row in rows}))
        answerer = rows[0].adapter.answerer
        with self._session.lock, answerer.autocast():
            batch = self._batch(rows)
            with self._joint(rows, batch) as joint:
                answers = answerer.answer_joint(joint, [row.max_tokens for row in rows])
                number = rows[0].num_likeliest
                return answerer.with_likeliest(joint, answers, number) if number else answers

    def _batch(self, rows: Sequence[AskedRow]) -> Batch:
        examples = [Example(number, row.input_ids, []) for number, row in enumerate(rows)]
        stacked = None
        if rows[0].pictures:
            features = self._features([picture for row in rows for picture in row.pictures])
            stacked = torch.stack(features)
            if len(stacked) > len(rows):  # several images a row
                stacked = stacked.unflatten(0, (len(rows), -1))
        pad = rows[0].adapter.parts.codec.pad_token_id
        return collate(examples, pad, visual_features=stacked).to(self._device)

    def _joint(self, rows: Sequence[AskedRow], batch: Batch) -> AbstractContextManager[JointInput]:
        """Gives what the backbone reads: of one adapter as its model has it, of several row by row."""
        adapter = rows[0].adapter
        if all(row.adapter is adapter for row in rows):
            return adapter.parts.model.answering(batch.input_ids, batch.attention_mask, batch.visual_features)
        each = [row.adapter.mixable for row in rows]
        known = [one for one in each if one is not None]
        assert len(known) == len(each)  # others have a batch key of their own
        return nullcontext(mixed_joint_input(known, batch.input_ids, batch.attention_mask, batch.visual_features))

    def _features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Returns (visual, feature_dim) of every image; those that are not kept are encoded at once, each once."""
        found: dict[str, Tensor] = {}
        for picture in pictures:
            features = picture.features if picture.features is not None else self._cache.get(picture.key)
            if features is not None:
                found[picture.key] = features
        new = {picture.key: picture for picture in pictures if picture.key not in found}
        for encoder in {picture.encoder for picture in new.values()}:
            own = [picture for picture in new.values() if picture.encoder is encoder]
            pixels = torch.stack([picture.pixels for picture in own if picture.pixels is not None])
            for picture, features in zip(own, encoder(pixels.to(self._device)), strict=True):
                found[picture.key] = features.clone()  # not a view that keeps the whole batch
                self._cache.put(picture.key, found[picture.key])
        self._metrics.add_images(hits=len(pictures) - len(new), misses=len(new))
        return [found[picture.key] for picture in pictures]
