"""Which runs vLLM can answer with, and what is not known of those. No torch."""

from __future__ import annotations

from pathlib import Path

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.presence import require_adapter
from dept_vl.models.language.decoder_family import DecoderFamily
from dept_vl.models.language.families import fetched_family
from dept_vl.models.language.stored import check_files
from dept_vl.runs.folder import refuse_several
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import refuse_existing

_SCALES_TWICE = "vLLM multiplies embeddings that it is given by sqrt(d_model) once more"
_REFUSED = {
    "gemma": _SCALES_TWICE,
    "gemma2": _SCALES_TWICE,
    "paligemma": "vLLM puts its images before everything else, and the prompt has its place before the images",
}
"""Family -> why vLLM cannot read what the adapter makes."""

_NOTES = {
    "qwen3_vl": "vLLM, in the sources that were read, parts all embeddings of a request with an image into themselves "
    "and deepstack features, which a prompt's do not have, and so fails at it; ask the engine once before relying on it"
}
"""Family -> what is said of an adapter with images."""


def check_vllm_export(run_dir: Path, out: Path, config: TrainConfig) -> None:
    """Refuses to export what vLLM cannot answer with, as far as files say it, or into a folder that is taken.

    Args:
        run_dir: The run's.
        out: The new folder.
        config: The run's settings.

    Raises:
        DataError: `out` is taken.
        ConfigError: The backbone's files are not there, or what computes the method is not installed.
        CheckpointError: No adapter, a run of several tasks, or a backbone that vLLM cannot be given embeddings for.
    """
    refuse_existing(out)
    refuse_several(run_dir, "RUN")
    require_adapter(run_dir)
    config.tuner.check_packages()
    name, revision = config.model.backbone, config.model.revision
    family, stored = fetched_family(name, revision)
    if why := _why_not(isinstance(family, DecoderFamily), family.reads_images, str(stored["model_type"]), config):
        raise CheckpointError(f"{run_dir}: cannot be exported to vLLM: {why}")
    check_files(name, revision)


def _why_not(is_decoder: bool, reads_images: bool, family: str, config: TrainConfig) -> str | None:
    """Returns why vLLM cannot answer with a run of a family; None where it can."""
    if not is_decoder:
        return (
            f"its backbone is an encoder-decoder ({family}), and vLLM takes embeddings for decoder-only models; "
            "`dept-vl serve` answers with it"
        )
    if config.uses_images and not reads_images:
        return (
            "its images are encoded beside the backbone and projected by the run; only vision-language backbones have "
            "images in vLLM; `dept-vl serve` answers with it"
        )
    if config.uses_images and config.data.visual_features == "zero":
        return "it saw nothing in its images (data.visual_features: zero), and would here"
    if config.model.train_connector:
        return "its connector was trained, and vLLM has that of the backbone; `dept-vl serve` answers with it"
    return _REFUSED.get(family)


def vllm_notes(family: str, config: TrainConfig) -> list[str]:
    """Returns what whoever exports a run is to know.

    Args:
        family: ``model_type`` of the backbone.
        config: The run's settings.
    """
    notes = [_NOTES[family]] if config.uses_images and family in _NOTES else []
    task = config.resolve_task()
    if config.decode.method == "score" or (config.decode.method == "auto" and task.labels is not None):
        notes.append("the run answers with the likeliest label; through vLLM it writes its answer freely, greedily")
    elif config.decode.num_beams > 1:
        notes.append(f"the run answers with {config.decode.num_beams} beams; through vLLM its answers are greedy")
    return notes
