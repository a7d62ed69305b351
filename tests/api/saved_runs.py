"""Run folders made without training: an adapter of drawn values on a frozen model, and its settings."""

from pathlib import Path
from typing import Any

import torch

from dept_vl.models.build import build_model
from dept_vl.models.language.families import stored_family
from dept_vl.runs.folder import RUN_CONFIG_FILE
from dept_vl.settings.load import dump_config, load_config

SMALL = {
    "tuner.name": "prompt-tuning", "tuner.num_virtual_tokens": 3, "data.max_source_length": 24,
    "data.max_target_length": 6, "model.image_encoder.model": "demo", "model.image_encoder.pooled_grid": None,
    "model.image_encoder.dtype": "float32",
}  # fmt: skip
"""Settings of the smallest models; features are not rounded, so that an image has the same alone and among others."""


def save_run(folder: Path, task: str, backbone: str | Path, *, seed: int = 0, **settings: Any) -> Path:
    """Writes a run of a task, by name or file, or of several (``vqa+coco``); its adapter's values are drawn."""
    found = stored_family(str(backbone))
    reads_images = found is not None and found[0].reads_images
    small = {key: value for key, value in SMALL.items() if not (reads_images and "image_encoder" in key)}
    given = {**small, "task": task, "model.backbone": str(backbone), "output_dir": str(folder), **settings}
    if given["tuner.name"] != "prompt-tuning" and "tuner.num_virtual_tokens" not in settings:
        del given["tuner.num_virtual_tokens"]
    config = load_config(None, given)
    kind, tasks = config.model.image_encoder, [one.resolve_task() for one in config.each_task()]
    uses_encoder = tasks[0].uses_images and not reads_images
    model, _ = build_model(
        config.model,
        config.tuner,
        max_source_length=config.data.max_source_length,
        feature_dim=kind.feature_dim() if uses_encoder else None,
        seed=seed,
        answer_cue=config.data.answer_cue,
        answer_form=config.data.answer_form or "plain",
        tasks=[one.name for one in tasks] if config.is_mix else (),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    features = kind.load().fingerprint if uses_encoder else None
    if tasks[0].uses_images and reads_images:
        features = model.backbone.image_processing().fingerprint()
    model.save_pretrained(folder, task=None if config.is_mix else tasks[0], features=features)
    (folder / RUN_CONFIG_FILE).write_text(dump_config(config))
    return folder
