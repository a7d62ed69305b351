"""The training loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dept_vl.data.collator import IGNORE_INDEX


@dataclass(frozen=True)
class ModelOutput:
    """The result of a training forward.

    Attributes:
        loss_per_example: (batch,) float32, mean cross-entropy over the example's own label tokens, in nats.
        logits: (batch, target, vocabulary).
    """

    loss_per_example: Tensor
    logits: Tensor


def loss_per_example(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Returns the cross-entropy averaged over each example's own label tokens, in nats; 0 without any.

    What a step's loss makes of them is ``data.loss_mean``: their mean, as Sung et al. train VQA (``vqa_model.py``), or
    the mean over the batch's tokens, which transformers' models return, as they train captions (``caption_model.py``)
    and the released DePT trains everything.

    Args:
        logits: (batch, target, vocabulary).
        labels: (batch, target) ids, `IGNORE_INDEX` for padding.
        label_smoothing: Share of a token's weight that all words of the vocabulary have alike; see
            ``torch.nn.functional.cross_entropy``.

    Returns:
        (batch,) float32.
    """
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=label_smoothing,
    ).view(labels.shape)  # (batch, target)
    return losses.sum(dim=1) / (labels != IGNORE_INDEX).sum(dim=1).clamp(min=1)
