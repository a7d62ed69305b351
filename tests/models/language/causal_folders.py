"""Writes tiny random GPT-2 and Llama checkpoints with word-level tokenizers."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
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
