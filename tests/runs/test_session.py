import pytest
import torch
from safetensors.torch import load_file

from dept_vl.errors import ConfigError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.runs.session import Session
from dept_vl.settings.load import load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.training.trainer import train


def settings(t5_folder, tiny_data, run_dir, **overrides) -> TrainConfig:
    return load_config(
        None,
        {
            "output_dir": str(run_dir),
            "model.backbone": str(t5_folder),
            "data.dir": str(tiny_data),
            "data.max_source_length": 16,
            "tuner.budget_tokens": 20,
            "tuner.num_virtual_tokens": 4,
            "data.batch_size": 8,
            "loop.max_steps": 4,
            "loop.eval_every_steps": 2,
            **overrides,
        },
    )


def tensor_bytes(run_dir) -> bytes:
    """Returns an adapter's bytes behind its header, whose keys safetensors writes in any order."""
    content = (run_dir / WEIGHTS_FILE).read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_runs_of_one_session_equal_runs_of_their_own(t5_folder, tiny_data, tmp_path, fresh_process):
    session = Session()
    for seed in (0, 1):
        shared = settings(t5_folder, tiny_data, tmp_path / f"shared-{seed}", seed=seed)
        train(shared, tiny_data, session=session)
        evaluate_run(shared, tiny_data, shared.run_dir, session=session)
    for seed in (0, 1):
        alone = settings(t5_folder, tiny_data, tmp_path / f"alone-{seed}", seed=seed)
        if seed == 0:
            train(alone, tiny_data)
        else:  # the second run of the session against a process that has done nothing before
            assert fresh_process.run(train, alone, tiny_data) == 0, fresh_process.printed()
        evaluate_run(alone, tiny_data, alone.run_dir)
        assert tensor_bytes(tmp_path / f"shared-{seed}") == tensor_bytes(alone.run_dir)
        name = "predictions-test.json"
        assert (tmp_path / f"shared-{seed}" / name).read_bytes() == (alone.run_dir / name).read_bytes()


def test_the_backbone_is_loaded_once_and_only_for_equal_settings(t5_folder, tiny_data, tmp_path):
    session = Session()
    first = settings(t5_folder, tiny_data, tmp_path / "a")
    other = settings(t5_folder, tiny_data, tmp_path / "b", **{"model.dropout_rate": 0.3})
    assert session.backbone(first.model)[0] is session.backbone(first.model)[0]
    assert session.backbone(other.model)[0].model.config.dropout_rate == 0.3
    projected = settings(t5_folder, tiny_data, tmp_path / "c", **{"model.visual_projection": "vl-t5"})
    assert session.backbone(projected.model)[0] is session.backbone(first.model)[0]


def test_a_second_precision_in_one_session_is_refused(t5_folder, tiny_data, tmp_path):
    session = Session()
    session.check_precision("float32")
    config = settings(t5_folder, tiny_data, tmp_path / "run", **{"loop.precision": "bf16"})
    with pytest.raises(ConfigError, match=r"loop\.precision: earlier runs of this process were 'float32'"):
        train(config, tiny_data, session=session)
    assert not config.run_dir.exists()


def test_a_second_device_in_one_session_is_refused():
    session = Session()
    session.check_device(torch.device("cpu"))
    session.check_device(torch.device("cpu"))
    with pytest.raises(
        ConfigError, match="device: the frozen models of this session are on 'cpu', and not on 'cuda:1'"
    ):
        session.check_device(torch.device("cuda:1"))


def test_frozen_weights_of_a_session_stay_as_they_were(t5_folder, tiny_data, tmp_path):
    session = Session()
    config = settings(t5_folder, tiny_data, tmp_path / "run")
    train(config, tiny_data, session=session)
    kept = session.backbone(config.model)[0].model.state_dict()
    for name, tensor in load_file(t5_folder / "model.safetensors").items():
        assert (kept[name] == tensor).all(), name
