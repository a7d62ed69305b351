"""The model card of an adapter."""

from __future__ import annotations

from dept_vl.models.adapter.files import ADAPTER_CONFIG_FILE, AdapterConfig


def model_card(config: AdapterConfig) -> str:
    """Returns the model card: what the adapter is, what it fits and how to load it."""
    name = config.backbone.name
    method = config.tuner.label
    front = ["library_name: dept-vl", "tags:", f"- {method}", "- parameter-efficient-fine-tuning"]
    visual = "none: text only"
    if config.visual is not None:
        encoder = (config.features or {}).get("model", "not recorded")
        visual = f"{config.visual.feature_dim}-d features of {encoder}, `{config.visual.projection}` projection"
        if config.visual.position_bias is not None:
            visual += f", relative position bias `{config.visual.position_bias}`"
    backbone_hash = (config.backbone.weights_sha256 or "not recorded")[:12]
    rows = [
        ("Task", config.task or "not recorded"),
        ("Method", ", ".join([method, *(f"{name} = {fact}" for name, fact in config.facts.items())])),
        ("Longest text", f"{config.max_source_length} tokens"),
        ("Frozen backbone", f"{name} (weights sha256 {backbone_hash})"),
        ("Visual input", visual),
        ("Answer cue", "`" + config.answer_cue.replace("\n", "\\n") + "`" if config.answer_cue else "none"),
        ("Written by", f"dept-vl {config.dept_vl_version}"),
    ]
    if config.origin is not None:
        origin = config.origin
        text = f"a released DePT adapter (weights sha256 {origin.weights_sha256[:12]}); low-rank pair: {origin.lowrank}"
        rows.append(("Imported from", text))
    table = "\n".join(f"| {left} | {right} |" for left, right in rows)
    return (
        "---\n" + "\n".join(front) + "\n---\n\n"
        f"# {method} for {config.task or 'a task'} on {name}\n\n"
        "This folder holds only what was trained: the tuner's tensors and, for images, the visual projection. What is "
        "frozen, of the language model and of the image encoder, comes from their own checkpoints.\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n"
        "```python\nfrom dept_vl.models.adapted_model import AdaptedModel\n"
        "from dept_vl.models.config import ModelConfig\n\n"
        f'model, codec = AdaptedModel.from_pretrained("path/to/this/folder", ModelConfig(backbone="{name}"))\n```\n\n'
        f"Settings and first values: `{ADAPTER_CONFIG_FILE}`. Method: {'; '.join(config.tuner.references)}.\n"
    )
