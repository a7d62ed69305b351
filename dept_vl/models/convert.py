"""Weights in other formats to a folder of safetensors that this package reads: ``dept-vl convert``."""

from __future__ import annotations

from pathlib import Path

from dept_vl.models.weight_files import WeightSource
from dept_vl.system.atomic import atomic_folder


def convert(source: WeightSource, out: Path) -> str:
    """Writes a folder of safetensors, settings and, of a language model, tokenizer files; whole or not at all.

    It is loaded once before it gets its name. No code in the source is run.

    Args:
        source: As `dept_vl.models.weight_files.check_conversion` found it.
        out: The folder to make.

    Returns:
        What it is, for people.

    Raises:
        CheckpointError: The weights are damaged, hold more than tensors, or are of something else.
        ConfigError: Settings or tokenizer beside them are missing or of another model.
    """
    with atomic_folder(out) as building:
        if source.kind == "backbone":
            from dept_vl.models.language.convert import convert_pickled

            return convert_pickled(source.files, source.folder, building)
        if source.kind == "gguf":
            from dept_vl.models.language.convert import convert_gguf

            return convert_gguf(source.files[0], building)
        from dept_vl.models.vision.open_clip import convert as clip

        if source.kind == "openai-clip":
            return clip.convert_openai(source.files[0], building)
        if source.kind == "open-clip":
            return clip.convert_open_clip(source.files[0], source.folder, building)
        return clip.convert_transformers(source.files[0], source.folder, building)
