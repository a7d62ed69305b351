"""From rows that fit one batch to their answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from dept_vl.data.collator import Batch, Example, VisualTensors, collate
from dept_vl.inference.answer import Answer
from dept_vl.models.language.joint import JointInput
from dept_vl.runs.session import Session
from dept_vl.serving.adapters import AskedRow
from dept_vl.serving.image_cache import LeastRecentlyUsed
from dept_vl.serving.metrics import Metrics
from dept_vl.serving.mixed import mixed_joint_input
from dept_vl.serving.pictures import Features, Picture


class Engine:
    """Answers batches of rows, of one adapter or of several; one thread at a time."""

    def __init__(
        self, session: Session, device: torch.device, cache: LeastRecentlyUsed[Features], metrics: Metrics
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
        pictures = [picture for row in rows for picture in row.pictures]
        stacked: VisualTensors = {}
        if pictures:
            features = self._features(pictures)
            stacked = pictures[0].reader.stacked([[features[one.key] for one in row.pictures] for row in rows])
        return collate(examples, rows[0].adapter.parts.codec.pad_token_id, **stacked).to(self._device)

    def _joint(self, rows: Sequence[AskedRow], batch: Batch) -> AbstractContextManager[JointInput]:
        """Gives what the backbone reads: of one adapter as its model has it, of several row by row."""
        adapter = rows[0].adapter
        images = batch.images if batch.images is not None else batch.visual_features
        if all(row.adapter is adapter for row in rows):
            return adapter.parts.model.answering(batch.input_ids, batch.attention_mask, images)
        each = [row.adapter.mixable for row in rows]
        known = [one for one in each if one is not None]
        assert len(known) == len(each)  # others have a batch key of their own
        return nullcontext(mixed_joint_input(known, batch.input_ids, batch.attention_mask, images))

    def _features(self, pictures: Sequence[Picture]) -> dict[str, Features]:
        """Returns the features of every image by its key; those that are not kept are encoded at once, each once."""
        found: dict[str, Features] = {}
        for picture in pictures:
            features = picture.features if picture.features is not None else self._cache.get(picture.key)
            if features is not None:
                found[picture.key] = features
        new = {picture.key: picture for picture in pictures if picture.key not in found}
        for reader in {picture.reader for picture in new.values()}:
            own = [picture for picture in new.values() if picture.reader is reader]
            encoded = reader.encode([picture.prepared for picture in own], self._device)
            for picture, features in zip(own, encoded, strict=True):
                found[picture.key] = features
                self._cache.put(picture.key, features)
        self._metrics.add_images(hits=len(pictures) - len(new), misses=len(new))
        return found
