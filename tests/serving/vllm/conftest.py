"""Runs on a tiny decoder-only model and on tiny vision-language models, exported to vLLM."""

import pytest
import torch

from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.build import build_model, load_model
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.serving.vllm.export import export_to_vllm
from dept_vl.settings.load import dump_config, load_config
from tests.api.saved_runs import save_run
from tests.models.language.causal_folders import save_tiny_llama
from tests.models.vision_language_folders import save_tiny_vlm

DEPT = {
    "tuner.name": "dept", "tuner.budget_tokens": 6, "tuner.num_virtual_tokens": 3, "tuner.allow_nearest": True,
}  # fmt: skip


def exported(run, out):
    """Returns the export of a run."""
    return export_to_vllm(run, out, read_run_config(run)).folder


def loaded(run) -> tuple[AdaptedModel, object]:
    """Returns a run's model and codec."""
    return load_model(run, read_run_config(run).model)


def save_vlm_run(folder, task, backbone, *, seed=0, **settings):
    """Writes a run on a vision-language backbone, as `save_run` does on others."""
    given = {
        "task": task, "model.backbone": str(backbone), "output_dir": str(folder), "data.max_source_length": 24,
        "data.max_target_length": 5, **DEPT, **settings,
    }  # fmt: skip
    config = load_config(None, given)
    model, _ = build_model(
        config.model, config.tuner, max_source_length=24, feature_dim=None, seed=seed, answer_form="chat"
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    processing = model.backbone.image_processing(config.model.system_prompt)
    features = processing.fingerprint() if config.uses_images else None
    model.save_pretrained(folder, task=config.resolve_task(), features=features)
    (folder / RUN_CONFIG_FILE).write_text(dump_config(config))
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def text_run(tiny_llama, tmp_path_factory):
    """DePT for SST-2 on a tiny Llama."""
    return save_run(
        tmp_path_factory.mktemp("runs") / "sst2", "sst2", tiny_llama, **DEPT, **{"decode.method": "generate"}
    )


@pytest.fixture(scope="session")
def llava_run(tmp_path_factory):
    """DePT for VQA on a tiny LLaVA."""
    return save_vlm_run(
        tmp_path_factory.mktemp("runs") / "vqa", "vqa", save_tiny_vlm("llava", tmp_path_factory.mktemp("llava"))
    )
