"""Writes tiny random vision-language checkpoints: real configurations, processors and chat templates, small sizes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dept_vl.models.language.families import FAMILIES
from dept_vl.system.extras import is_installed

TEXTS = ("what color is the ball?", "how many cubes are red?", "yes", "no", "red", "blue", "two", "one")
POSITIONS = 512
EOS = "<|im_end|>"

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "max_position_embeddings": POSITIONS, **LAYERS,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}

QWEN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOL = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'][0]['text'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}<start_of_turn>{{ message['role'] }}\n{{ first if loop.first else '' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ item['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERNVL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(special: Sequence[str], **named: str) -> PreTrainedTokenizerFast:
    """Returns a byte-level tokenizer with a few words of its own and some special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290 + len(special),
        special_tokens=["<pad>", *special],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **{"eos_token": EOS, **named})


def _qwen(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    ends = {f"vision_{end}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")}
    return {**ids, **ends}


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(("<|im_start|>", EOS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"))


def _qwen_processor(tokenizer: PreTrainedTokenizerFast, name: str, patch: int) -> Any:
    sizes = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 4 * patch**2, "longest_edge": 64 * patch**2}
    images = transformers.Qwen2VLImageProcessor(size=size, **sizes)
    videos = transformers.Qwen2VLVideoProcessor(size=size, **sizes)
    return getattr(transformers, name)(images, tokenizer, videos, chat_template=QWEN)


def _qwen3_vl() -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    config = transformers.Qwen3VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": {**MROPE, "mrope_interleaved": True}},
        vision_config={
            "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
        **_qwen(tokenizer),
    )  # fmt: skip
    return config, _qwen_processor(tokenizer, "Qwen3VLProcessor", 4)


def _qwen2_5_vl() -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": MROPE, "eos_token_id": 2},
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=False,
        **_qwen(tokenizer),
    )  # fmt: skip
    return config, _qwen_processor(tokenizer, "Qwen2_5_VLProcessor", 4)


def _idefics3(kind: str = "Idefics3") -> tuple[Any, Any]:
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    around = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>")
    tokenizer = make_tokenizer((*around, *tiles), eos_token="<end_of_utterance>")
    config = getattr(transformers, f"{kind}Config")(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 4,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        pad_token_id=0,
    )  # fmt: skip
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, do_image_splitting=True
    )
    more = [transformers.SmolVLMVideoProcessor(size={"longest_edge": 16})] if kind == "SmolVLM" else []
    processor = getattr(transformers, f"{kind}Processor")
    return config, processor(images, tokenizer, *more, image_seq_len=4, chat_template=SMOL)


def _smolvlm() -> tuple[Any, Any]:
    config, processor = _idefics3("SmolVLM")
    return config, processor


SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "vision_use_head": False,
}  # fmt: skip
SIDE = {"height": 16, "width": 16}


def _gemma3() -> tuple[Any, Any]:
    words = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
    named = {"boi_token": words[3], "eoi_token": words[4], "image_token": words[5]}
    tokenizer = make_tokenizer(words, eos_token="<end_of_turn>", bos_token="<bos>", extra_special_tokens=named)
    config = transformers.Gemma3Config(
        text_config={**TEXT, "vocab_size": len(tokenizer), "sliding_window": 8, "query_pre_attn_scalar": 8,
                     "layer_types": ["sliding_attention", "full_attention"]},
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip
    images = transformers.Gemma3ImageProcessor(size=SIDE)
    return config, transformers.Gemma3Processor(images, tokenizer, chat_template=GEMMA, image_seq_length=4)


def _paligemma() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(("<bos>", "<eos>", "<image>"), eos_token="<eos>", bos_token="<bos>")
    images = transformers.SiglipImageProcessor(size=SIDE)
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer)  # which adds words of its own to the tokenizer
    size = len(tokenizer)
    config = transformers.PaliGemmaConfig(
        text_config={**TEXT, "model_type": "gemma2", "vocab_size": size, "query_pre_attn_scalar": 8,
                     "sliding_window": 256},
        vision_config={**SIGLIP, "projection_dim": 32},
        projection_dim=32,
        hidden_size=32,
        vocab_size=size,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return config, processor


def _llava() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(("<image>", EOS))
    config = transformers.LlavaConfig(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**SIGLIP, "model_type": "clip_vision_model", "num_hidden_layers": 3, "projection_dim": 16},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SIDE)
    return config, transformers.LlavaProcessor(
        images, tokenizer, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=LLAVA,
    )  # fmt: skip


def _llava_onevision() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(("<|im_start|>", EOS, "<image>", "<video>"))
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    config = transformers.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config=SIGLIP,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    images = transformers.LlavaOnevisionImageProcessor(size=SIDE, image_grid_pinpoints=pinpoints)
    videos = transformers.LlavaOnevisionVideoProcessor(size=SIDE)
    return config, transformers.LlavaOnevisionProcessor(
        images, tokenizer, videos, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=ONEVISION
    )


def _internvl() -> tuple[Any, Any]:
    words = ("<|im_start|>", EOS, "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    named = {"start_image_token": words[2], "end_image_token": words[3], "context_image_token": words[4],
             "video_token": words[5]}  # fmt: skip
    tokenizer = make_tokenizer(words, extra_special_tokens=named)
    config = transformers.InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [16, 16], "patch_size": [4, 4],
        },
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    images = transformers.GotOcr2ImageProcessor(size=SIDE, crop_to_patches=True, min_patches=1, max_patches=4)
    videos = transformers.InternVLVideoProcessor(size=SIDE)
    return config, transformers.InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=INTERNVL)


def _qwen3_5() -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    config = transformers.Qwen3_5Config(
        text_config={
            **TEXT, "vocab_size": len(tokenizer) + 4,
            "rope_parameters": {**MROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0},
            "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 16,
        },
        tie_word_embeddings=False,
        **_qwen(tokenizer),
    )  # fmt: skip
    return config, _qwen_processor(tokenizer, "Qwen3VLProcessor", 4)


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen3_vl": _qwen3_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_5": _qwen3_5,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
    "paligemma": _paligemma,
    "llava": _llava,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
}
"""Family -> what makes its configuration and its processor."""


def is_readable(family: str) -> bool:
    """Returns whether the extra that a family's processor needs is installed."""
    extra = FAMILIES[family].extra
    return extra is None or is_installed(extra)


def save_tiny_vlm(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Writes a model whose weights are large enough for words and images to matter, and too small for rounding to."""
    config, processor = MAKERS[family]()
    model = getattr(transformers, FAMILIES[family].model_class)(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def draw_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Returns an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
