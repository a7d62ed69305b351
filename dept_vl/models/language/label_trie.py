"""The label strings of a task packed into one tree of tokens, so that one pass scores them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelTrie:
    """The distinct proper prefixes of the labels, each a node that is read once whatever labels share it.

    The root stands for the source alone: index 0 of `depths`, `ancestor_mask` and of the logits that `log_likelihoods`
    takes. Node j is index j + 1. A node comes after its ancestors.

    Attributes:
        tokens: (nodes,) the last token of each prefix.
        depths: (1 + nodes,) tokens of each prefix, 0 for the root.
        ancestor_mask: (1 + nodes, 1 + nodes) bool, [query, key]: the key is the query or one of its ancestors.
        step_label: (steps,) the label a step belongs to. A step is one token of one label.
        step_node: (steps,) the index whose logits predict the step.
        step_token: (steps,) the token predicted.
        num_labels: Labels.
    """

    tokens: Tensor
    depths: Tensor
    ancestor_mask: Tensor
    step_label: Tensor
    step_node: Tensor
    step_token: Tensor
    num_labels: int

    @classmethod
    def build(cls, labels: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> LabelTrie:
        """Packs labels, each the ids of a whole target with its end of sequence.

        Args:
            labels: At least one, none empty, no two the same (``TextCodec.label_ids`` sees to it).
            device: Where the tensors lie.
        """
        nodes: dict[tuple[int, ...], int] = {(): 0}
        steps: list[tuple[int, int, int]] = []
        for number, ids in enumerate(labels):
            for depth, token in enumerate(ids):
                node = nodes.setdefault(tuple(ids[:depth]), len(nodes))
                steps.append((number, node, token))
        ancestors = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for prefix, node in nodes.items():
            ancestors[node, [nodes[prefix[:depth]] for depth in range(len(prefix) + 1)]] = True
        step_label, step_node, step_token = torch.tensor(steps, device=device).unbind(dim=1)
        return cls(
            tokens=torch.tensor([prefix[-1] for prefix in nodes if prefix], dtype=torch.long, device=device),
            depths=torch.tensor([len(prefix) for prefix in nodes], device=device),
            ancestor_mask=ancestors.to(device),
            step_label=step_label,
            step_node=step_node,
            step_token=step_token,
            num_labels=len(labels),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix that is read."""
        return int(self.depths.max())

    def log_likelihoods(self, logits: Tensor) -> Tensor:
        """Sums each label's log-probabilities over all its tokens, without any normalisation by length.

        Args:
            logits: (batch, 1 + nodes, vocabulary).

        Returns:
            (batch, labels) float32, in nats.
        """
        logits = logits.float()
        picked = logits[:, self.step_node, self.step_token] - logits.logsumexp(dim=-1)[:, self.step_node]
        totals = picked.new_zeros(len(logits), self.num_labels)
        return totals.index_add_(1, self.step_label, picked)
