"""Writes a run as what vLLM is given: soft prompt, update and layout, with a client that needs no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dept_vl.data.image_rows import ImageRows
from dept_vl.data.text_codec import CausalTextCodec
from dept_vl.errors import CheckpointError, DataError
from dept_vl.inference.inputs import PredictionInput, source_texts
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import load_model
from dept_vl.models.language.causal import CausalBackbone
from dept_vl.models.language.source_hook import Kind, VisionLanguageInput
from dept_vl.models.language.stored import WEIGHTS_FILE, WEIGHTS_INDEX, find_folder, tensor_names, weight_map
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.folder import RUN_CONFIG_FILE
from dept_vl.runs.hub import find_run
from dept_vl.serving.vllm import client
from dept_vl.serving.vllm.layout import CLIENT_FILE, FORMAT, README_FILE, SETTINGS_FILE, TENSORS_FILE
from dept_vl.serving.vllm.refusals import check_vllm_export, vllm_notes
from dept_vl.settings.load import absolute_config, dump_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import atomic_folder, write_json, write_text
from dept_vl.system.version import __version__
from dept_vl.tasks import Task
from dept_vl.tuners.row_embedding import RowEmbedding

_PICTURE = (256, 256)
"""Width and height of the picture that is asked about once, to compare."""


@dataclass(frozen=True)
class Exported:
    """What became of a run.

    Attributes:
        folder: The export's.
        num_virtual_tokens: Vectors of the soft prompt.
        update_rows: Positions that have an update; 0 for none.
        notes: What is to be known of it.
    """

    folder: Path
    num_virtual_tokens: int
    update_rows: int
    notes: Sequence[str]


@torch.no_grad()
def export_to_vllm(run_dir: Path, out: Path, config: TrainConfig) -> Exported:
    """Writes a run's adapter as embeddings for vLLM.

    Before the folder appears, what its client makes of a text (and a picture, where there are images) is compared with
    what the model itself reads; they are equal to the bit, or nothing is written.

    Args:
        run_dir: The run's.
        out: The new folder.
        config: The run's settings, what has moved laid over them.

    Raises:
        DataError: `out` is taken.
        ConfigError: The backbone cannot be loaded.
        CheckpointError: As `check_vllm_export`; the method acts inside the backbone; or the embeddings differ.
    """
    check_vllm_export(run_dir, out, config)
    model, codec = load_model(run_dir, config.model, find_run=find_run)
    embedding = model.tuner.row_embedding()
    if embedding is None:
        raise CheckpointError(
            f"{run_dir}: cannot be exported to vLLM: {config.tuner.label!r} does more than a prompt before the text "
            "and an update to it; `dept-vl serve` answers with it, and `dept-vl fold` makes plain weights of some"
        )
    assert isinstance(codec, CausalTextCodec)  # no other family was let through
    task = config.resolve_task()
    text = _example(task)
    settings = _settings(model, codec, config, embedding, text)
    with atomic_folder(out) as building:
        tensors = {"prompt": embedding.prompt, **({} if embedding.update is None else {"update": embedding.update})}
        save_file(
            {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()},
            building / TENSORS_FILE,
        )
        write_json(building / SETTINGS_FILE, settings)
        write_text(building / RUN_CONFIG_FILE, dump_config(absolute_config(config)))
        write_text(building / README_FILE, _readme(settings, run_dir))
        shutil.copyfile(client.__file__, building / CLIENT_FILE)
        _compare(client.ExportedAdapter(building, _backbone_folder(config)), model, codec, task, text, run_dir)
    return Exported(
        out,
        embedding.num_virtual_tokens,
        0 if embedding.update is None else len(embedding.update),
        settings["notes"],
    )


def _settings(
    model: AdaptedModel, codec: CausalTextCodec, config: TrainConfig, embedding: RowEmbedding, text: str
) -> dict[str, Any]:
    """Returns the content of ``export.json``."""
    backbone, task = cast("CausalBackbone", model.backbone), config.resolve_task()
    identity = model.adapter_config().backbone
    module = backbone.model.get_input_embeddings()
    scale = getattr(module, "embed_scale", None)
    return {
        "format": FORMAT,
        "dept_vl_version": __version__,
        "task": task.name,
        "method": config.tuner.label,
        "backbone": asdict(identity),
        "dtype": config.model.dtype,
        "word_embeddings": {**_stored_table(config, backbone.word_embeddings), "scale": scale and float(scale)},
        "text": {**asdict(codec.source_form), "max_tokens": model.tuner.max_source_length},
        "frame": asdict(model.frame),
        "chat_template": _chat_template(backbone, config.model.system_prompt),
        "is_last_aligned": embedding.is_last_aligned,
        "max_new_tokens": choose_decoding(config, task).max_new_tokens,
        "eos_token_id": codec.tokenizer.eos_token_id,
        "images": task.num_images if task.uses_images else 0,
        "example": text,
        "notes": vllm_notes(backbone.family, config),
    }


def _chat_template(backbone: CausalBackbone, system_prompt: str | None) -> str:
    """Returns a chat template that puts a message's parts one after the other and adds nothing.

    A checkpoint's own puts a turn's images before whatever else is said (LLaVA), or depends on what comes first
    (SmolVLM), while the prompt is to stand behind its head and before the image. vLLM hands parts to the template one
    by one only if it loops over messages and their content.
    """
    image = backbone.template(system_prompt).image if isinstance(backbone, VisionLanguageBackbone) else ""
    return (
        "{%- for message in messages -%}{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}"
        f"{{{{- {json.dumps(image)} -}}}}"
        "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endfor -%}"
    )


def _backbone_folder(config: TrainConfig) -> Path:
    folder = find_folder(config.model.backbone, config.model.revision)
    assert folder is not None  # it was loaded from there
    return folder


def _stored_table(config: TrainConfig, table: Tensor) -> dict[str, str]:
    """Returns in which file, and under which name, the word embeddings are stored.

    Raises:
        CheckpointError: No stored tensor has their values.
    """
    folder = _backbone_folder(config)
    is_one = (folder / WEIGHTS_FILE).is_file()
    files = dict.fromkeys(tensor_names(folder), WEIGHTS_FILE) if is_one else weight_map(folder / WEIGHTS_INDEX)
    for name, file in sorted(files.items()):
        with safe_open(folder / file, framework="pt") as weights:
            if weights.get_slice(name).get_shape() != list(table.shape):
                continue
            if torch.equal(weights.get_tensor(name).to(table.dtype), table.cpu()):
                return {"file": file, "tensor": name}
    raise CheckpointError(f"{folder}: none of its tensors has the values of the model's word embeddings")


def _example(task: Task) -> str:
    """Returns a source text as the task's template makes it, dots in the place of what is asked."""
    columns = dict.fromkeys(task.input_columns, "...")
    try:
        return source_texts(task, [PredictionInput((), columns)])[0]
    except DataError:  # a template of numbers
        return " ".join(columns.values()) or task.name


def _compare(
    exported: client.ExportedAdapter,
    model: AdaptedModel,
    codec: CausalTextCodec,
    task: Task,
    text: str,
    run_dir: Path,
) -> None:
    """Refuses an export whose client would send other embeddings than the model reads."""
    (ids,) = codec.source_ids([text], model.tuner.max_source_length)
    made = torch.cat(exported.embeddings(ids, has_images=task.uses_images))
    read = _embeddings_read(model, ids, task.num_images if task.uses_images else 0)
    if exported.source_ids(text) != ids or not torch.equal(made, read):
        raise CheckpointError(
            f"{run_dir}: cannot be exported to vLLM: the embeddings of {text!r} as the export makes them are not those "
            "that the model reads"
        )


def _embeddings_read(model: AdaptedModel, ids: list[int], num_images: int) -> Tensor:
    """Returns what the model reads of a text, with pictures but without what it reads of those, (tokens, d_model)."""
    device = model.backbone.word_embeddings.device
    input_ids = torch.tensor([ids], device=device)
    images = None
    if num_images:
        backbone = cast("VisionLanguageBackbone", model.backbone)
        picture = backbone.image_processing(model.config.system_prompt)(Image.new("RGB", _PICTURE))
        images = ImageRows(((picture,) * num_images,)).map(lambda tensor: tensor.to(device))
    cast("CausalBackbone", model.backbone).reads_once = False  # the row has all that it reads; the model is ours alone
    joint = model.joint_input(input_ids, torch.ones_like(input_ids), images)
    embeds = joint.inputs_embeds[0]
    return (embeds[_beside_images(joint)] if isinstance(joint, VisionLanguageInput) else embeds).cpu()


def _beside_images(joint: VisionLanguageInput) -> Tensor:
    """Returns which places are neither image tokens nor what stands around and between those, (total,) bool."""
    is_beside = joint.kinds[0] != Kind.IMAGE
    places = (~is_beside).nonzero().flatten()
    if len(places):
        ids = [record.ids for record in joint.records[0]]
        first = int(places[0]) - int((joint.input_ids[0, places[0]] == ids[0]).nonzero()[0])
        is_beside[first : first + sum(map(len, ids))] = False
    return is_beside


def _readme(settings: dict[str, Any], run_dir: Path) -> str:
    """Returns how the export is used."""
    backbone = settings["backbone"]
    notes = "".join(f"\n- {note[0].upper()}{note[1:]}." for note in settings["notes"])
    limit = f" --limit-mm-per-prompt '{json.dumps({'image': settings['images']})}'" if settings["images"] else ""
    picture = " photo.jpg" * settings["images"]
    name = run_dir.resolve().name
    return f"""# {name}, for vLLM

{settings["method"]} for {settings["task"]} on {backbone["name"]}: embeddings that vLLM (0.33 or newer) reads in the
place of words.

```
vllm serve {backbone["name"]} --enable-prompt-embeds --trust-request-chat-template{limit}
python client.py {json.dumps(settings["example"])}{picture} --url http://127.0.0.1:8000
dept-vl proxy --upstream http://127.0.0.1:8000 {name}=THIS_FOLDER   # OpenAI's chat for any client
```

`embeddings.safetensors` holds the soft prompt and what is added to the text's positions, `export.json` the layout.
`client.py` makes a request of them and needs torch, safetensors and transformers alone. A request brings its own chat
template, which adds nothing: template, prompt and text are embeddings, an image is an image. vLLM's
`--chat-template-content-format` stays as it is by default. Whoever may send embeddings and templates to vLLM is trusted
by it: let nobody but the proxy or this client reach it.
{notes}
""".rstrip() + "\n"  # fmt: skip
