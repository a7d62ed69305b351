"""The model card of an adapter: what the hub reads of it, a table for people, and code that loads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from transformers import GPT2Config, T5Config

from dept_vl.evaluators import display_scale
from dept_vl.models.adapter.files import ADAPTER_CONFIG_FILE, AdapterConfig
from dept_vl.models.config import BACKBONE, ModelConfig
from dept_vl.models.demo import DEMO
from dept_vl.models.language.published_shapes import published_config
from dept_vl.tasks import Task, get_task, is_task

FOLDER = "path/to/this/folder"
"""What the code in the card calls the adapter's folder."""

_LOADED_WITH = (
    "backbone", "revision", "dtype", "system_prompt", "train_connector", "visual_projection", "frozen_projection",
    "visual_position_bias",
)  # fmt: skip
"""Settings of the frozen models that an adapter is loaded with; the others are about training, or about images."""

_UNKNOWN = "unknown"

_METRIC_NAMES = {
    "vqa_accuracy": "VQA accuracy",
    "vqa_accuracy_legacy_vlt5": "VQA accuracy (Sung et al.'s scorer)",
    "vqa_soft_accuracy": "VQA soft accuracy",
    "exact_match": "Exact match",
    "accuracy": "Accuracy",
    "f1": "F1",
    "f1a": "F1 over all answers",
    "f1_macro": "Macro F1",
    "em": "Exact match",
    "squad_em": "Exact match",
    "squad_f1": "F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
"""Score -> what papers call it, where that is not its own name, as of CIDEr."""


@dataclass(frozen=True)
class Publication:
    """What the card says of an adapter that is shared, beside what it says of any.

    Attributes:
        name: What it is loaded by: its hub id.
        licence: In the hub's words; None for the backbone's.
        data: What the data are called, where they are not the task's own.
        protocol: The protocol of a text task.
        scores: On ``test``, in the scorers' own scale.
        rows: How many rows those are of, in words.
    """

    name: str = FOLDER
    licence: str | None = None
    data: str | None = None
    protocol: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    rows: str = ""

    def notes(self, split: str) -> str:
        """Returns what the scores on a split are of, beside the task, in parentheses; empty for nothing."""
        protocol = self.protocol and f"protocol {self.protocol}"
        found = ", ".join(filter(None, (self.data, protocol, self.rows if split == "test" else None)))
        return f" ({found})" if found else ""


def model_card(
    config: AdapterConfig,
    model: ModelConfig,
    scores: Mapping[str, float] | None = None,
    publication: Publication | None = None,
) -> str:
    """Returns the model card: what the adapter is, what it fits, what it scored, and how to load it.

    Args:
        config: What the adapter is.
        model: The frozen models it was trained on.
        scores: On ``val``, of the evaluation it was kept for, in the scorers' own scale; None where none was made.
        publication: What else is said of an adapter that is shared.
    """
    scores, publication = scores or {}, publication or Publication()
    model = dataclasses.replace(
        model, backbone=config.backbone.name, revision=model.revision or config.backbone.revision
    )
    method, task = config.tuner.label, config.resolve_task()
    asked = task or (get_task(config.tasks[0]) if config.tasks and is_task(config.tasks[0]) else None)
    which = config.tasks[0] if config.tasks else None
    title = f"{method} for {config.task or 'a task'} on {_public(model.backbone)}"
    front = ModelCardData(
        library_name="dept-vl",
        license=publication.licence or _licence(model.backbone),
        base_model=model.backbone if _is_hub_id(model.backbone) else None,
        datasets=[task.source.path] if task is not None and task.source is not None else None,
        tags=[*method.split("+"), "parameter-efficient-fine-tuning", *([task.name] if task else config.tasks)],
        model_name=title,
        pipeline_tag=_kind(task) if task is not None else None,
        eval_results=_results(task, scores, publication) or None,
    )
    table = "\n".join(f"| {left} | {right} |" for left, right in _rows(config, model, task, scores, publication))
    return (
        f"---\n{front.to_yaml()}\n---\n\n"
        f"# {title}\n\n"
        "This folder holds only what was trained: the tuner's tensors and, for images, the visual projection unless it "
        "is frozen too. What is frozen comes from where it was trained: the language model, the image encoder, and "
        "perhaps the projection.\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n"
        "With the run's `config.yaml` beside it:\n\n"
        f"```python\n{_asking_snippet(model, publication.name, asked, which)}```\n\n"
        f"or `dept-vl predict --checkpoint {publication.name}{_asked(asked, which)}`. "
        "The adapter alone, as a torch module:\n\n"
        f"```python\n{_snippet(config, model, publication.name)}```\n\n"
        f"Settings and first values: `{ADAPTER_CONFIG_FILE}`. Method: {'; '.join(config.tuner.references)}.\n"
    )


def _rows(
    config: AdapterConfig, model: ModelConfig, task: Task | None, scores: Mapping[str, float], publication: Publication
) -> list[tuple[str, str]]:
    visual = "none: text only" if config.features is None else "images, read by the backbone's own image encoder"
    if config.visual is not None:
        encoder = (config.features or {}).get("model", "not recorded")
        visual = f"{config.visual.feature_dim}-d features of {encoder}, `{config.visual.projection}` projection"
        if model.frozen_projection is not None:
            visual += f", frozen: {_public(model.frozen_projection)}"
        if config.visual.position_bias is not None:
            visual += f", relative position bias `{config.visual.position_bias}`"
    backbone_hash = (config.backbone.weights_sha256 or "not recorded")[:12]
    facts = (f"{name} = {fact}" for name, fact in config.facts.items())
    rows = [
        ("Task", config.task or "not recorded"),
        ("Method", ", ".join([config.tuner.label, *facts])),
        ("Longest text", f"{config.max_source_length} tokens"),
        ("Frozen backbone", f"{_public(model.backbone)} (weights sha256 {backbone_hash})"),
        ("Visual input", visual),
        ("Answer cue", "`" + config.answer_cue.replace("\n", "\\n") + "`" if config.answer_cue else "none"),
        (
            "Licence",
            f"{f'of the adapter: {publication.licence}; ' if publication.licence else ''}of the frozen backbone: "
            f"{_licence(model.backbone)}; the data have terms of their own",
        ),
        ("Written by", f"dept-vl {config.dept_vl_version}"),
    ]
    if task is not None:
        rows.insert(1, ("Data", publication.data or task.paper.replace("|", "\\|")))
    sides = {split: found for split, found in (("val", scores), ("test", publication.scores)) if found}
    for at, (split, found) in enumerate(sides.items(), start=2):
        shown = ", ".join(_shown(name, value) for name, value in _main(found).items())
        rows.insert(at, (f"Scores on {split}", f"{shown}{publication.notes(split)}"))
    if config.origin is not None:
        origin = config.origin
        text = f"a released DePT adapter (weights sha256 {origin.weights_sha256[:12]}); low-rank pair: {origin.lowrank}"
        rows.append(("Imported from", text))
    return rows


def _asking_snippet(model: ModelConfig, name: str, task: Task | None, which: str | None) -> str:
    """Returns code that loads the run and asks it something, of several tasks about `which`."""
    where = repr(name)
    if BACKBONE.is_local(model.backbone):
        where += f", backbone={_public(model.backbone)!r}"
    chosen = "" if which is None else f"for_task({which!r})."
    asking = "" if task is None else f"print(model.{chosen}{_call(task)})\n"
    return f"import dept_vl\n\nmodel = dept_vl.load({where})\n{asking}"


def _call(task: Task) -> str:
    """Returns how a model is asked in Python, by what the task gives: a caption, scores of labels, or an answer."""
    values: dict[str | None, object] = {"texts": ["TEXT"], "integer": 0, "number": 0}
    columns = [f"{name}={values.get(task.columns.get(name), 'TEXT')!r}" for name in task.input_columns]
    photos = [f"photo-{number}.jpg" for number in range(1, task.num_images + 1)]
    image = "'photo.jpg'" if task.num_images == 1 else repr(photos)
    given = ", ".join([*([image] if task.uses_images else []), *columns])
    if any(way.labels for way in task.ways()):
        return f"score({given})"
    return f"answer({given})" if columns else f"caption({given})"


def _snippet(config: AdapterConfig, model: ModelConfig, name: str) -> str:
    """Returns code that loads the adapter onto the frozen models it was trained on."""
    default = ModelConfig()
    if config.visual is None:
        model = dataclasses.replace(model, frozen_projection=None)  # it is not read
    elif model.frozen_projection is not None:
        model = dataclasses.replace(model, frozen_projection=_public(model.frozen_projection))
    given = [
        f"{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(ModelConfig)
        if field.name in _LOADED_WITH[1:] and getattr(model, field.name) != getattr(default, field.name)
    ]
    finding = "" if model.frozen_projection is None else ", find_run=find_run"
    note = "  # the frozen backbone, a local folder\n" if BACKBONE.is_local(model.backbone) else ""
    arguments = ", ".join([f"backbone={_public(model.backbone)!r}", *given])
    return (
        "from dept_vl.models.build import load_model\n"
        "from dept_vl.models.config import ModelConfig\n"
        "from dept_vl.runs.hub import find_run\n\n"
        f"frozen = ModelConfig({arguments}){note or chr(10)}"
        f"model, codec = load_model(find_run({name!r}), frozen{finding})\n"
    )


def _asked(task: Task | None, which: str | None) -> str:
    """Returns the flags with which a question is put to ``dept-vl predict``, of several tasks about `which`."""
    if task is None:
        return ""
    columns = "".join(f" --column {name}=TEXT" for name in task.input_columns)
    chosen = "" if which is None else f" --task {which}"
    return f"{chosen}{' --image' + ' IMAGE' * task.num_images if task.uses_images else ''}{columns}"


def _public(name: str) -> str:
    """Returns a backbone's name as others can use it: of a folder, whose place says nothing to them, the last part."""
    return f"path/to/{Path(name).resolve().name}" if BACKBONE.is_local(name) else name


def _is_hub_id(name: str) -> bool:
    return name != DEMO and not BACKBONE.is_local(name)


def _licence(backbone: str) -> str:
    """Returns the licence of a packaged or published backbone in the hub's words; others are not known here."""
    if backbone == DEMO:
        return "mit"
    published = published_config(backbone)
    licences = {T5Config: "apache-2.0", GPT2Config: "mit"}
    return next((text for kind, text in licences.items() if isinstance(published, kind)), _UNKNOWN)


def _kind(task: Task) -> str:
    """Returns what a task is among the hub's."""
    has_labels = any(way.labels for way in task.ways())
    if not task.uses_images:
        return "text-classification" if has_labels else "text-generation"
    if task.input_columns:
        return "visual-question-answering"
    return "image-classification" if has_labels else "image-to-text"


def _results(task: Task | None, scores: Mapping[str, float], publication: Publication) -> list[EvalResult]:
    """Returns scores as the hub lists them, as papers print and call them."""
    if task is None:
        return []
    data = task.source.path if task.source is not None else task.name
    return [
        EvalResult(
            task_type=_kind(task),
            dataset_type=publication.data or data,
            dataset_name=f"{task.name}{publication.notes(split)}",
            dataset_split=split,
            metric_type=name,
            metric_name=_METRIC_NAMES.get(name, name),
            metric_value=float(display_scale(name).printed(value)),
        )
        for split, found in (("validation", scores), ("test", publication.scores))
        for name, value in _main(found).items()
    ]


def _main(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores without their details."""
    return {name: value for name, value in scores.items() if "/" not in name}


def _shown(name: str, value: float) -> str:
    scale = display_scale(name)
    return f"{name} {scale.printed(value)} {scale.text}".rstrip()
