"""Records of a vision-language backbone: reads against a bare memory map, and training on them against pixels."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.speed.features import MAP, Read
from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.visual_work import write_visual_work
from data_prep.cache_features import cache_features
from data_prep.feature_writer import FeatureWriter
from data_prep.store_layouts import RecordLayout
from dept_vl.data.image_rows import Record
from dept_vl.data.record_store import RecordStore
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.backbone_encoder import BackboneEncoder
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.runs.session import Session
from dept_vl.settings.load import config_from_tree
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train

_BATCHES, _BATCH = 30, 64
STORE = "dept-vl record store"
CACHED, ENCODED = "stored records", "pixels through the tower"

_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% else %}{{ '<image>' }}"
    "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_SPECIAL = ("<pad>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>")
_SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": (
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
         "num_key_value_heads": 2},
        {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "image_size": 64, "patch_size": 8},
    ),
    "smolvlm": (
        {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "head_dim": 64, "num_key_value_heads": 3},
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "image_size": 512, "patch_size": 16},
    ),
}  # fmt: skip
"""Language model and image tower of SmolVLM-256M, but for its 49,280 words; and small ones for trying out."""


def measure_records(settings: BenchSettings) -> list[Result]:
    """Measures reads with a warm page cache, and real runs of ``dept-vl train``, one frozen backbone between them."""
    torch.set_num_threads(settings.threads)
    return [_measure_reads(settings), _measure_training(settings)]


def _measure_reads(settings: BenchSettings) -> Result:
    count, width = (64, 32) if settings.shape == "tiny" else (500, 2048)
    rng = np.random.default_rng(0)
    lengths = rng.integers(64, 384, count)
    records = [
        Record(torch.arange(int(n)), torch.rand(int(n), width).bfloat16(), torch.rand(1, int(n), width).bfloat16())
        for n in lengths
    ]
    store = _write_store(settings.work_dir / "records", records, width)
    gather = _write_map(settings.work_dir / "flat", records, width)
    contestants = [
        Contestant(STORE, lambda: {"rate": _read_rate(RecordStore.open(store).read, count, rng)}),
        Contestant(MAP, lambda: {"rate": _read_rate(gather, count, rng)}),
    ]
    rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    floors = [Floor("reads/s against a raw memory map, warm", STORE, MAP, 0.85)]
    note = (
        f"random batches of 64 of {count:,} images of 64 to 383 tokens x 2 levels x {width} bfloat16, warm page cache"
    )
    return Result("record reads", "images", rounds, floors, [note])


def _read_rate(read: Read, count: int, rng: np.random.Generator) -> float:
    """Returns images read a second of this process's own time, in random batches, after one pass over all."""
    read(np.arange(count).tolist())
    started = time.process_time()
    for _ in range(_BATCHES):
        read(rng.integers(0, count, _BATCH).tolist())
    return _BATCHES * _BATCH / (time.process_time() - started)


def _write_store(folder: Path, records: Sequence[Record], width: int) -> Path:
    fingerprint = {"levels": 2, "feature_dim": width, "dtype": "bfloat16", "where": "connector"}
    layout = RecordLayout(fingerprint, row_bytes=1_000_000)
    with FeatureWriter(folder, fingerprint, range(len(records)), layout=layout) as writer:
        for plan in writer.pending():
            writer.write(plan, [records[image_id] for image_id in plan.image_ids], [0] * len(plan.image_ids))
        writer.finish()
    return folder


def _write_map(path: Path, records: Sequence[Record], width: int) -> Read:
    """One bare array of all tokens, of which each image's are copied: the least there is to do."""
    rows = [torch.stack([one.tokens, cast(torch.Tensor, one.deepstack)[0]], dim=1) for one in records]
    ends = np.cumsum([0, *map(len, rows)])
    with open(path, "wb") as file:
        for row in rows:
            file.write(row.view(torch.int16).numpy().tobytes())
    array = np.memmap(path, np.int16, "r", shape=(int(ends[-1]), 2, width)).view(np.ndarray)
    return lambda image_ids: [torch.from_numpy(array[ends[i] : ends[i + 1]].copy()) for i in image_ids]


def _measure_training(settings: BenchSettings) -> Result:
    backbone = _write_backbone(settings.work_dir / "vlm", "tiny" if settings.shape == "tiny" else "smolvlm")
    data_dir = settings.work_dir / "data"
    batch, images = 1, 2
    write_visual_work(data_dir, num_images=images, rows=settings.steps * batch)
    session = Session()
    configs = {
        name: _config(settings, backbone, data_dir, source, batch)
        for name, source in ((CACHED, "cache"), (ENCODED, "encode"))
    }
    model = ModelConfig(backbone=str(backbone))
    loaded = cast(VisionLanguageBackbone, session.backbone(configs[CACHED].model)[0])
    started = time.perf_counter()
    encoder = BackboneEncoder(loaded, label="vlm", exif=model.image_encoder.exif, dtype="bfloat16")
    cache_features(encoder, data_dir, get_task("vqa"), num_workers=0, batch_size=batch, device="cpu")
    caching_s = time.perf_counter() - started
    contestants = [Contestant(name, partial(_train, config, data_dir, session)) for name, config in configs.items()]
    for one in contestants:
        one.measure()
    rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    floors = [Floor("samples/s over pixels, decoding included", CACHED, ENCODED, 1.3)]
    notes = [
        f"batch {batch}, {settings.steps} steps a round, prompt tuning (m = 20), float32; a tile of 64 tokens an image",
        f"caching {images} images took {caching_s:.1f} s; random weights, and 300 words in place of 49,280",
    ]
    return Result("VQA training, SmolVLM-256M's shape", "samples", rounds, floors, notes)


def _train(config: TrainConfig, data_dir: Path, session: Session) -> dict[str, float]:
    result = train(config, data_dir, overwrite=True, session=session)
    lines = (result.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    record = next(row for row in map(json.loads, lines) if "samples_per_s" in row)
    return {"rate": record["samples_per_s"]}


def _config(settings: BenchSettings, backbone: Path, data_dir: Path, source: str, batch: int) -> TrainConfig:
    every = dict.fromkeys(("max_steps", "eval_every_steps", "save_every_steps", "log_every_steps"), settings.steps)
    return config_from_tree(
        {
            "task": "vqa",
            "output_dir": str(settings.work_dir / f"run-{source}"),
            "tuner": {"name": "prompt-tuning", "num_virtual_tokens": 20},
            "model": {"backbone": str(backbone)},
            "data": {
                "batch_size": batch, "visual_features": source, "dir": str(data_dir), "max_source_length": 32,
                "max_target_length": 4,
            },
            "loop": {**every, "eval_rows": 1},
        }
    )  # fmt: skip


def _write_backbone(folder: Path, shape: str) -> Path:
    """Saves an Idefics3, which SmolVLM-256M is one of, with random weights and a small vocabulary."""
    text, vision = _SHAPES[shape]
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config_class: Any = transformers.Idefics3Config
    config = config_class(
        text_config={**text, "model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 8192},
        vision_config=vision,
        scale_factor=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    side = {"longest_edge": vision["image_size"]}
    images = transformers.Idefics3ImageProcessor(size=side, max_image_size=side, do_image_splitting=False)
    places = (vision["image_size"] // vision["patch_size"]) ** 2 // 16
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=places, chat_template=_TEMPLATE)
    processor.save_pretrained(folder)
    return folder


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Returns a byte-level tokenizer of some 300 words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(_SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["what color is the big red circle left of the blue square?"] * 5, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end_of_utterance>"
    )
