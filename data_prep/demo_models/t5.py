"""Trains the demo T5 on text alone: it never sees an image or an image feature.

The tasks are questions and captions about scenes described in words (`descriptions`) and span corruption. Three
things make the frozen model easy to adapt later, all of them done to words: described words are perturbed and rescaled,
unrelated words stand before the text (where a soft prompt will be), and T5's relative position bias is zero for every
pair with a bag of words, since bags have no order.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.t5.modeling_t5 import T5Attention, T5Block

from data_prep.demo_models.descriptions import BagListKind
from data_prep.demo_models.optimizer import build_optimizer, take_step
from data_prep.demo_models.t5_batches import IGNORE_INDEX, TaskKind, TextBatch, TextTasks
from data_prep.demo_models.tokenizer import EOS_ID, PAD_ID
from data_prep.demo_world.scene import Split

logger = logging.getLogger(__name__)

Description = BagListKind | Literal["sentences"]
DESCRIPTIONS: tuple[Description, ...] = ("objects", "cells", "numbered", "sentences")
_MASKED = -1e4  # added to the attention scores of padding

Mixture = tuple[tuple[TaskKind, Description, float], ...]
"""(task, how the scene is described, share of the batches)"""

_FIRST_MIXTURE: Mixture = (
    ("vqa", "objects", 0.25),
    ("vqa", "cells", 0.36),
    ("vqa", "sentences", 0.10),
    ("caption", "objects", 0.07),
    ("caption", "cells", 0.13),
    ("caption", "sentences", 0.04),
    ("spans", "sentences", 0.05),
)
_SECOND_MIXTURE: Mixture = (
    ("vqa", "objects", 0.06),
    ("vqa", "cells", 0.12),
    ("vqa", "numbered", 0.42),
    ("vqa", "sentences", 0.12),
    ("caption", "cells", 0.05),
    ("caption", "numbered", 0.16),
    ("caption", "sentences", 0.03),
    ("spans", "sentences", 0.04),
)


@dataclass(frozen=True)
class T5Recipe:
    """What one stage of the demo T5's training depends on; the shipped model had the two of `STAGES`."""

    num_steps: int = 5000
    batch_size: int = 96
    relative_lr: float = 1e-2
    vector_lr: float = 1e-2
    warmup_steps: int = 200
    max_word_noise: float = 0.5  # largest standard deviation added to a bag's embedding, whose own is about 1
    max_filler_tokens: int = 12  # unrelated words before the text
    mixture: Mixture = _FIRST_MIXTURE
    seed: int = 2


STAGES: tuple[T5Recipe, ...] = (
    T5Recipe(),
    T5Recipe(num_steps=1800, relative_lr=5e-3, vector_lr=5e-3, max_word_noise=0.6, mixture=_SECOND_MIXTURE, seed=4),
)
"""The shipped model's training: the second stage goes on from the first, with numbered bags and more sentences."""


def model_config(vocab_size: int) -> T5Config:
    """A T5 (v1.0: ReLU, tied embeddings) with 3 encoder and 2 decoder layers, d_model 192."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": 192,
        "d_kv": 32,
        "num_heads": 6,
        "d_ff": 512,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "dropout_rate": 0.1,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "pad_token_id": PAD_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": PAD_ID,
    }
    return T5Config(**settings)


@dataclass(frozen=True)
class Noise:
    """How a batch's words are perturbed; see `T5Recipe`."""

    word_std: float
    filler_tokens: int


def encode(model: T5ForConditionalGeneration, batch: TextBatch, noise: Noise | None) -> tuple[Tensor, Tensor]:
    """Runs the encoder on [filler; text; bags], the relative position bias zero for every pair with a bag.

    Returns:
        Hidden states (batch, filler + text + bags, d_model) and the mask (batch, filler + text + bags), 1 = attend.
    """
    table = model.get_input_embeddings()
    text_ids = batch.input_ids
    if noise is not None and noise.filler_tokens:
        filler = torch.randint(3, table.num_embeddings, (1, noise.filler_tokens)).expand(len(text_ids), -1)
        text_ids = torch.cat([filler, text_ids], dim=1)
    embeds, mask = table(text_ids), text_ids != PAD_ID
    num_text = text_ids.shape[1]
    if batch.bag_ids is not None:
        words = (batch.bag_ids != PAD_ID).unsqueeze(-1)
        count = words.sum(dim=2)  # (batch, bags, 1)
        bags = (table(batch.bag_ids) * words).sum(dim=2) / count.clamp(min=1).sqrt()
        if noise is not None:
            std = torch.rand(len(bags), 1, 1) * noise.word_std
            scale = torch.exp((torch.rand(len(bags), 1, 1) - 0.5) * 0.8)
            bags = (bags + torch.randn_like(bags) * std) * scale
        if batch.number_ids is not None:
            bags = bags + table(batch.number_ids)
            if noise is not None:  # the same for all bags, as VL-T5's position term is
                bags = bags + torch.randn(len(bags), 1, bags.shape[2]) * torch.rand(len(bags), 1, 1)
        embeds = torch.cat([embeds, bags], dim=1)
        mask = torch.cat([mask, count[..., 0] > 0], dim=1)
    first = cast(T5Attention, cast(T5Block, model.encoder.block[0]).layer[0].SelfAttention)
    num_bags = embeds.shape[1] - num_text
    bias = functional.pad(first.compute_bias(num_text, num_text), (0, num_bags, 0, num_bags))
    bias = bias + torch.where(mask, 0.0, _MASKED)[:, None, None, :]
    hidden = embeds
    for block in model.encoder.block:
        hidden = block(hidden, attention_mask=None, position_bias=bias)[0]
    return model.encoder.final_layer_norm(hidden), mask


def loss_of(model: T5ForConditionalGeneration, batch: TextBatch, noise: Noise | None) -> Tensor:
    """Mean cross-entropy per target token."""
    hidden, mask = encode(model, batch, noise)
    # The decoder reads the target shifted right by one; padding behind the end is never scored.
    shifted = functional.pad(batch.labels[:, :-1], (1, 0), value=PAD_ID).clamp(min=PAD_ID)
    output = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
        attention_mask=mask.long(),
        decoder_input_ids=shifted,
        use_cache=False,
    )
    return functional.cross_entropy(
        output.logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE_INDEX
    )


def train_t5(
    recipe: T5Recipe,
    tokenizer: PreTrainedTokenizerFast,
    model: T5ForConditionalGeneration | None = None,
    save_to: Path | None = None,
    save_every: int = 1000,
) -> T5ForConditionalGeneration:
    """Trains the T5 on the CPU, matrix products in bfloat16, and returns it in float32, in eval mode.

    Args:
        recipe: Steps, batch, rates and seed.
        tokenizer: The demo tokenizer.
        model: What to go on from; None starts afresh.
        save_to: Folder that receives the model every `save_every` steps, so that a long run can be looked at.
        save_every: Steps between two writes, and between two measurements of the accuracy.
    """
    torch.manual_seed(recipe.seed)
    if model is None:
        model = T5ForConditionalGeneration._from_config(model_config(len(tokenizer)), attn_implementation="eager")
    model.eval()  # no dropout: the drawn text never repeats
    optimizer, schedule = build_optimizer(
        model,
        relative_lr=recipe.relative_lr,
        vector_lr=recipe.vector_lr,
        num_steps=recipe.num_steps,
        warmup_steps=recipe.warmup_steps,
    )
    rng, tasks = random.Random(recipe.seed), TextTasks(tokenizer, "pretrain", recipe.seed)
    shares = [share for _, _, share in recipe.mixture]
    started, means = time.monotonic(), {"vqa": 0.0, "caption": 0.0, "spans": 0.0}
    for step in range(recipe.num_steps):
        task, kind, _ = rng.choices(recipe.mixture, shares)[0]
        is_long = task == "caption" or kind == "sentences"
        batch = tasks.draw(task, kind, recipe.batch_size // 2 if is_long else recipe.batch_size)
        noise = Noise(
            word_std=recipe.max_word_noise * min(1.0, step / (0.3 * recipe.num_steps)),
            filler_tokens=rng.choice((0, rng.randint(1, recipe.max_filler_tokens))),
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch, noise)
        take_step(model, loss, optimizer, schedule)
        means[task] += (loss.item() - means[task]) * 0.05
        if step % 100 == 0:
            rate = (step + 1) / (time.monotonic() - started)
            logger.info("t5 step %d loss %s, %.2f steps/s", step, {k: round(v, 3) for k, v in means.items()}, rate)
        if step > 0 and step % save_every == 0:
            logger.info("t5 step %d accuracy %s", step, measure_accuracy(model, tokenizer, "val", 256))
            if save_to is not None:
                save_t5(model, tokenizer, save_to)
    return model


@torch.no_grad()
def measure_accuracy(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, split: Split, num_questions: int
) -> dict[str, float]:
    """The share of questions answered exactly from words, by greedy decoding, per kind of description."""
    accuracy: dict[str, float] = {}
    for kind in DESCRIPTIONS:
        batch = TextTasks(tokenizer, split, seed=3).draw("vqa", kind, num_questions)
        hidden, mask = encode(model, batch, None)
        ids: Tensor = cast(Any, model).generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden), attention_mask=mask.long(), max_new_tokens=5
        )
        answers = tokenizer.batch_decode(ids, skip_special_tokens=True)
        accuracy[kind] = sum(a.strip() == t for a, t in zip(answers, batch.targets, strict=True)) / num_questions
    return accuracy


def save_t5(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a folder that ``AutoModelForSeq2SeqLM`` and ``AutoTokenizer`` load, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    half = T5ForConditionalGeneration(model.config).half()
    half.load_state_dict({name: tensor.half() for name, tensor in model.state_dict().items()})
    half.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
