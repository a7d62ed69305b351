"""Writes tiny random GPT-2 and Llama checkpoints with word-level tokenizers, or a byte-level one as GPT-2's."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.conftest import WORDS

POSITIONS = 64


def save_tiny_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """GPT-2: 2 layers, 2 heads, 32 words, learned positions; like the real one it adds and pads with no token."""
    config = GPT2Config(
        vocab_size=32, n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1
    )  # fmt: skip
    _save(GPT2LMHeadModel(config), folder, seed)
    _tokenizer(adds_bos=False).save_pretrained(str(folder))
    return folder


def save_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Llama: 2 layers, 4 heads on 2 key-value heads, rotary positions, an output matrix of its own; adds ``<s>``."""
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=POSITIONS, bos_token_id=0, eos_token_id=1, rms_norm_eps=1e-5,
    )  # fmt: skip
    _save(LlamaForCausalLM(config), folder, seed)
    _tokenizer(adds_bos=True).save_pretrained(str(folder))
    return folder


def _save(model: torch.nn.Module, folder: Path, seed: int) -> None:
    """Saves a model whose weights are large enough for positions and words to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.0 if "lm_head" in name else 0.4))
    model.save_pretrained(folder)


def _tokenizer(*, adds_bos: bool) -> PreTrainedTokenizerFast:
    words = ["<s>", "</s>", "<unk>", *WORDS, "Label"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


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
