"""Writes tiny random checkpoints of every decoder-only family with word-level tokenizers, or byte-level ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from dept_vl.models.adapted_model import AdaptedModel
from tests.conftest import WORDS

POSITIONS = 64
WINDOW = 48
"""Of the sliding ones."""


def save_tiny_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """GPT-2: 2 layers, 2 heads, 32 words, learned positions; like the real one it adds and pads with no token."""
    config = GPT2Config(
        vocab_size=32, n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1
    )  # fmt: skip
    _save(GPT2LMHeadModel(config), folder, seed)
    _tokenizer(adds_bos=False).save_pretrained(str(folder))
    return folder


def save_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Llama: rotary positions, an output matrix of its own; adds ``<s>``."""
    return _save_tiny(LlamaConfig, folder, seed=seed, moves_vectors=False)


def save_tiny_qwen2(folder: Path, *, seed: int = 0) -> Path:
    """Qwen2: biases of q, k and v. Its tokenizer is read as a byte-level one, whatever it is: this one has letters."""
    _save_tiny(Qwen2Config, folder, seed=seed)
    _letters().save_pretrained(str(folder))
    return folder


def save_tiny_qwen3(folder: Path, *, seed: int = 0) -> Path:
    """Qwen3: norms of the heads of queries and keys, which are wider than the model's share."""
    return _save_tiny(Qwen3Config, folder, seed=seed, head_dim=6)


def save_tiny_gemma(folder: Path, *, seed: int = 0) -> Path:
    """Gemma: wide heads, word embeddings that are scaled and tied, norms around one."""
    return _save_tiny(GemmaConfig, folder, seed=seed, tie_word_embeddings=True, head_dim=6)


def save_tiny_gemma2(folder: Path, *, seed: int = 0) -> Path:
    """Gemma 2: a block with a sliding window and one without, norms behind the sublayers, caps that bite."""
    own = {"query_pre_attn_scalar": 5, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 4.0}
    return _save_tiny(
        Gemma2Config, folder, seed=seed, tie_word_embeddings=True, head_dim=6, sliding_window=WINDOW, **own
    )


def save_tiny_gemma3_text(folder: Path, *, seed: int = 0) -> Path:
    """Gemma 3: a block with a sliding window and one without, each with a rotary base of its own."""
    own = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
    return _save_tiny(Gemma3TextConfig, folder, seed=seed, tie_word_embeddings=True, head_dim=6, **own)


def save_tiny_smollm3(folder: Path, *, seed: int = 0) -> Path:
    """SmolLM3: its second block has no positions."""
    return _save_tiny(SmolLM3Config, folder, seed=seed, tie_word_embeddings=True, no_rope_layers=[1, 0])


def save_tiny_mistral(folder: Path, *, seed: int = 0) -> Path:
    """Mistral: every block has a sliding window; wide heads."""
    return _save_tiny(MistralConfig, folder, seed=seed, head_dim=6, sliding_window=WINDOW)


SAVE_TINY: dict[str, Callable[..., Path]] = {
    "gpt2": save_tiny_gpt2,
    "llama": save_tiny_llama,
    "qwen2": save_tiny_qwen2,
    "qwen3": save_tiny_qwen3,
    "gemma": save_tiny_gemma,
    "gemma2": save_tiny_gemma2,
    "gemma3_text": save_tiny_gemma3_text,
    "smollm3": save_tiny_smollm3,
    "mistral": save_tiny_mistral,
}
"""What writes a tiny one of every decoder-only family."""


def _save_tiny(
    kind: type[PretrainedConfig], folder: Path, *, seed: int, moves_vectors: bool = True, **own: Any
) -> Path:
    """Saves a model of 2 layers, 4 heads on 2 key-value heads and 32 words, and a tokenizer that adds ``<s>``."""
    shape = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "bos_token_id": 0, "eos_token_id": 1,
        "pad_token_id": None, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }  # fmt: skip
    _save(AutoModelForCausalLM.from_config(kind(**shape | own)), folder, seed, moves_vectors=moves_vectors)
    _tokenizer(adds_bos=True).save_pretrained(str(folder))
    return folder


def _save(model: torch.nn.Module, folder: Path, seed: int, *, moves_vectors: bool = False) -> None:
    """Saves a model whose weights are large enough for positions and words to matter, norms and biases too if asked."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.0 if "lm_head" in name else 0.4))
            elif moves_vectors:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)


def _tokenizer(*, adds_bos: bool) -> PreTrainedTokenizerFast:
    words = ["<s>", "</s>", "<unk>", *WORDS, "Label"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _letters() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose tokens are the letters of the words, without merges; adds no token."""
    letters = sorted(set("".join([*WORDS, "Label"])))
    vocabulary = {piece: index for index, piece in enumerate(["<s>", "</s>", "<unk>", "\u0120", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def set_attention(model: AdaptedModel, implementation: str) -> None:
    """Has a backbone attend as said; one whose scores have a cap goes on as it does, for the fused one has no cap."""
    if getattr(model.backbone.model.config, "attn_logit_softcapping", None) is None:
        model.backbone.model.set_attn_implementation(implementation)


def byte_level_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer as GPT-2's: a word and the space before it are one token; no padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    end = "<|endoftext|>"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*texts] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def gemma_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Trains a BPE tokenizer as Gemma's: spaces are letters and none is put before a text; adds ``<bos>``, and pads."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*special, *letters], show_progress=False)
    tokenizer.train_from_iterator(
        [word for text in texts for word in text.replace(" ", " \u2581").split(" ")] * 5, trainer
    )
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, chat_template=GEMMA_CHAT)


GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n{{ message.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""As Gemma 2's and 3's of one turn."""


def metaspace_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Trains a BPE tokenizer as Llama 2's: it puts the space before a text itself."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*texts] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
