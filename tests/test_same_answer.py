"""The same settings give the same adapter, however the work is cut up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.cache_features import cache_features
from data_prep.demo_world.files import write_scenes
from data_prep.prepare import prepare
from dept_vl.data.sampler import BatchRequest
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.runs.open import open_run
from dept_vl.settings.load import load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.training.trainer import train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Drawn scenes with features stored in float32 by the packaged CLIP."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "raw", seed=1, num_train=8, num_restval=2, num_val=4, num_test=2)
    prepare(get_task("vqa"), root / "raw", root)
    cache_features(load_config(None, CLIP).model.image_encoder, root, get_task("vqa"), batch_size=4, num_workers=0)
    return root


CLIP = {"model.image_encoder": {"model": "demo", "pooled_grid": None, "dtype": "float32"}}


@pytest.fixture
def config(t5_folder, data, tmp_path) -> TrainConfig:
    settings = {
        "output_dir": str(tmp_path / "run"), "model.backbone": str(t5_folder), "data.max_source_length": 16,
        "data.max_target_length": 4, "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8,
        "loop.max_steps": 4, "loop.eval_every_steps": 2, "loop.save_every_steps": 2, "loop.log_every_steps": 1,
    }  # fmt: skip
    return load_config(None, {**CLIP, **settings})


def adapter_after(config: TrainConfig, data: Path, run_dir: Path, **changes) -> dict[str, torch.Tensor]:
    config = replace(config, output_dir=str(run_dir), data=replace(config.data, **changes))
    train(config, data)
    return load_file(run_dir / WEIGHTS_FILE)


def test_four_loader_workers_give_the_bits_of_none(config, data, tmp_path):
    adapter_after(config, data, tmp_path / "none")
    adapter_after(config, data, tmp_path / "four", num_workers=4)
    assert (tmp_path / "none" / WEIGHTS_FILE).read_bytes() == (tmp_path / "four" / WEIGHTS_FILE).read_bytes()


def test_features_encoded_on_the_fly_give_the_adapter_of_cached_ones(config, data, tmp_path):
    cached = adapter_after(config, data, tmp_path / "cached")
    fresh = adapter_after(config, data, tmp_path / "fresh", visual_features="encode")
    assert all(torch.equal(fresh[name], tensor) for name, tensor in cached.items())


def test_an_example_has_one_loss_whatever_it_is_batched_with(config, data):
    parts = open_run(config, data, ("train",))
    model, dataset, visual = parts.model.eval(), parts.datasets["train"], parts.visual["train"]
    rows = dataset.indices[:16].tolist()

    def losses(size: int) -> torch.Tensor:
        parts = []
        for start in range(0, len(rows), size):
            batch = dataset.batch(BatchRequest(0, tuple(rows[start : start + size]), True, len(rows)))
            parts.append(model(batch.input_ids, batch.attention_mask, batch.labels, visual.features(batch)))
        return torch.cat([part.loss_per_example for part in parts]).detach()

    for size in (1, 5):
        torch.testing.assert_close(losses(size), losses(16), rtol=0, atol=1e-5)


def test_a_file_of_metrics_is_the_same_for_the_same_seed(config, data, tmp_path):
    lines = []
    for name in ("one", "two"):
        adapter_after(config, data, tmp_path / name)
        records = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        lines.append(
            [
                {key: value for key, value in record.items() if key not in ("samples_per_s", "data_wait_share")}
                for record in records
            ]
        )
    assert lines[0] == lines[1]
