"""The model of a server alone: a mixed batch of N adapters beside every other way to answer its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.serving.asking import Asked, Clock, batch_of
from benchmarks.serving.peft_lora import PeftLora, PlainT5, Rows
from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from dept_vl.models.demo import ASSETS, DEMO
from dept_vl.models.vision.projection import project_features
from dept_vl.serving.adapters import AskedRow
from dept_vl.serving.mixed import mixed_joint_input

BATCH = 32

ONE, MIXED, IN_TURN = "one adapter", "mixed batch", "one after another"
PEFT_MIXED, PEFT_IN_TURN = "PEFT LoRA, adapter_names", "PEFT LoRA, set_adapter in turn"
BASE, PLAIN = "no adapter, this package's T5", "no adapter, transformers' T5"


@dataclass(frozen=True)
class Equality:
    """How far rows of a mixed batch are from what their adapters say alone, the largest difference of a logit.

    Attributes:
        same_batch: From the adapter's own batch of the same rows.
        single: From the row by itself, without batch mates and padding.
        highest: The logit of largest size, for comparison.
    """

    same_batch: float
    single: float
    highest: float


class Ways:
    """Every way to answer a batch of `BATCH` rows, adapters round robin, greedily, `tokens` tokens each."""

    def __init__(
        self,
        runs: Sequence[Path],
        adapters: Sequence[int],
        tokens: int,
        *,
        with_peft: bool = True,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Loads all adapters, and a model of PEFT's for each number of them: it gets slower with all that it holds."""
        self._asked, self._tokens, self._clock = Asked(runs), tokens, clock
        self._asked.see_pictures()
        self._made: dict[int, list[AskedRow]] = {}
        self._model = self._rows(1)[0].adapter.parts.model
        # Every answer is as long as any other, for which there is no setting.
        self._model.backbone._special_tokens["min_new_tokens"] = tokens
        self.num_parameters = sum(p.numel() for p in self._model.tuner.parameters())
        self.adapters, self.peft = adapters, dict[int, PeftLora]()
        if with_peft:
            projection, name = self._model.visual_projection, self._model.config.backbone
            assert projection is not None
            folder = ASSETS / "t5" if name == DEMO else Path(name)
            self.peft = {n: PeftLora(folder, projection, self._asked.names[:n]) for n in adapters}
            self._plain_t5 = PlainT5(folder, projection)

    def rates(self, rounds: int) -> list[Result]:
        """Returns, for each number of adapters, rows a second of every way, all of them in turns.

        Raises:
            AssertionError: A batch of several adapters answers otherwise than each of its adapters.
        """
        alone: dict[str, Callable[[], object]] = {ONE: partial(self._mixed, 1), BASE: self._base}
        if self.peft:
            alone[PLAIN] = self._plain
        timed = {**alone, **{f"{name} of {n}": way for n in self.adapters for name, way in self._several(n).items()}}
        contestants = [Contestant(name, partial(self._measure, way)) for name, way in timed.items()]
        said = {name: way() for name, way in timed.items()}  # which warms up, too
        for n in self.adapters:
            for mixed, in_turn in ((MIXED, IN_TURN), (PEFT_MIXED, PEFT_IN_TURN)):
                if f"{mixed} of {n}" in said:
                    assert said[f"{mixed} of {n}"] == said[f"{in_turn} of {n}"], f"{mixed} of {n} answers otherwise"
        measured = run_rounds(contestants, rounds)
        floors = [Floor("beside one adapter", MIXED, ONE, 0.9), Floor("beside one after another", MIXED, IN_TURN, 4.0)]
        each = {n: [{_general(name, n): one[name] for name in one} for one in measured] for n in self.adapters}
        return [Result(f"{n} adapters", "rows", found, floors) for n, found in each.items()]

    def equality(self, adapters: int, checked: int) -> Equality:
        """Returns how far the logits of a mixed batch are from those of its adapters alone, by teacher forcing.

        Args:
            adapters: Of the batch.
            checked: Of how many rows of it.
        """
        rows = self._rows(adapters)
        batch, backbone = batch_of(rows), self._model.backbone
        same, single = [], []
        with torch.no_grad():
            known = [row.adapter.mixable for row in rows if row.adapter.mixable is not None]
            joint = mixed_joint_input(known, batch.input_ids, batch.attention_mask, batch.visual_features)
            answers = backbone.generate(joint, num_beams=1, max_new_tokens=self._tokens)
            together = backbone.logits(joint, answers)
            for place in range(0, BATCH, BATCH // checked):
                model, one = rows[place].adapter.parts.model, batch_of([rows[place]])
                with model.answering(batch.input_ids, batch.attention_mask, batch.visual_features) as own:
                    same.append(float((backbone.logits(own, answers)[place] - together[place]).abs().max()))
                with model.answering(one.input_ids, one.attention_mask, one.visual_features) as own:
                    alone = backbone.logits(own, answers[place][None])[0]
                single.append(float((alone - together[place]).abs().max()))
        return Equality(max(same), max(single), float(together.abs().max()))

    def _measure(self, way: Callable[[], object]) -> dict[str, float]:
        began = self._clock()
        way()
        return {"rate": BATCH / (self._clock() - began)}

    def _several(self, adapters: int) -> dict[str, Callable[[], list[str]]]:
        """Returns the ways to answer rows of so many adapters."""
        ways: dict[str, Callable[[], list[str]]] = {
            MIXED: partial(self._mixed, adapters), IN_TURN: partial(self._in_turn, adapters),
        }  # fmt: skip
        if self.peft:
            ways[PEFT_MIXED] = partial(self._peft, self.peft[adapters].together, adapters)
            ways[PEFT_IN_TURN] = partial(self._peft, self.peft[adapters].in_turn, adapters)
        return ways

    def _rows(self, adapters: int) -> list[AskedRow]:
        """Returns a batch's rows, made once: how a row is made is the same for all ways."""
        if adapters not in self._made:
            names = [self._asked.names[number % adapters] for number in range(BATCH)]
            self._made[adapters] = [self._asked.row(name, number, self._tokens) for number, name in enumerate(names)]
        return self._made[adapters]

    def _mixed(self, adapters: int) -> list[str]:
        return [answer.text for answer in self._asked.engine.answer(self._rows(adapters))]

    def _in_turn(self, adapters: int) -> list[str]:
        rows = self._rows(adapters)
        said: dict[int, str] = {}
        order = sorted(range(BATCH), key=lambda place: rows[place].adapter.run.name)
        for _, group in groupby(order, key=lambda place: rows[place].adapter.run.name):
            places = list(group)
            answers = self._asked.engine.answer([rows[place] for place in places])
            said.update(zip(places, (answer.text for answer in answers), strict=True))
        return [said[place] for place in range(BATCH)]

    def _base(self) -> list[str]:
        """Answers without prompt and update."""
        ids, mask, features = self._plain_rows(1)
        backbone, projection = self._model.backbone, self._model.visual_projection
        with torch.no_grad():
            visual = project_features(projection, features, backbone.word_embeddings)
            joint = backbone.join(backbone.embed_source(ids), visual, mask)
            return self._decode(backbone.generate(joint, num_beams=1, max_new_tokens=self._tokens))

    def _plain(self) -> list[str]:
        return self._decode(self._plain_t5.answer(self._plain_rows(1), self._tokens))

    def _peft(self, way: Callable[[Rows, Sequence[str], int], Tensor], adapters: int) -> list[str]:
        names = [row.adapter.run.name for row in self._rows(adapters)]
        return self._decode(way(self._plain_rows(adapters), names, self._tokens))

    def _plain_rows(self, adapters: int) -> Rows:
        batch = batch_of(self._rows(adapters))
        assert batch.visual_features is not None
        return batch.input_ids, batch.attention_mask, batch.visual_features

    def _decode(self, tokens: Tensor) -> list[str]:
        return self._rows(1)[0].adapter.parts.codec.decode(tokens)


def _general(name: str, adapters: int) -> str:
    """Returns a way's name without the number of adapters."""
    return name.removesuffix(f" of {adapters}")
