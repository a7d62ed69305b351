import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dept_vl.errors import CheckpointError
from dept_vl.settings.schema import OptimConfig
from dept_vl.training.checkpoints import Progress, list_states, load_state, save_state
from dept_vl.training.optim import build_optimizer
from dept_vl.tuners.base import ParamGroup


def make(seed):
    torch.manual_seed(seed)
    parameters = {"a": nn.Parameter(torch.randn(3, 2)), "b": nn.Parameter(torch.randn(4))}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def make_other(seed, name="adafactor", **settings):
    torch.manual_seed(seed)
    parameters = {"a": nn.Parameter(torch.randn(3, 2)), "b": nn.Parameter(torch.randn(4))}
    model = nn.ParameterDict(parameters)
    group = ParamGroup("soft_prompt", tuple(parameters.values()), 0.1)
    return parameters, build_optimizer(model, [group], OptimConfig(name=name, **settings))


def step(parameters, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_training_goes_on_bit_for_bit(tmp_path):
    parameters, optimizer = make(0)
    step(parameters, optimizer, 1)
    save_state(tmp_path, Progress(step=1, best_metric=0.5), parameters, optimizer, keep=2)
    step(parameters, optimizer, 2)
    others, other_optimizer = make(9)
    progress = load_state(list_states(tmp_path)[-1], others, other_optimizer)
    step(others, other_optimizer, 2)
    assert progress == Progress(step=1, best_metric=0.5)
    for name in parameters:
        assert torch.equal(parameters[name], others[name])


@pytest.mark.parametrize(
    "settings",
    [{}, {"factored": False}, {"scale_parameter": True}, {"name": "prodigy"}, {"name": "schedule-free"}],
    ids=str,
)
def test_training_with_another_optimiser_goes_on_bit_for_bit(tmp_path, settings):
    parameters, optimizer = make_other(0, **settings)
    for seed in (1, 2):
        step(parameters, optimizer, seed)
    save_state(tmp_path, Progress(step=2), parameters, optimizer, keep=2)
    others, other_optimizer = make_other(9, **settings)
    load_state(list_states(tmp_path)[-1], others, other_optimizer)
    for seed in (3, 4):
        step(parameters, optimizer, seed)
        step(others, other_optimizer, seed)
    for name in parameters:
        assert torch.equal(parameters[name], others[name])


def test_moments_of_another_optimiser_are_refused(tmp_path):
    parameters, optimizer = make(0)
    step(parameters, optimizer, 1)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    with pytest.raises(CheckpointError, match=r"holds a::exp_avg \(3, 2\), no moment of this run's"):
        load_state(folder, *make_other(1))
    parameters, optimizer = make_other(0)
    step(parameters, optimizer, 1)
    folder = save_state(tmp_path, Progress(step=2), parameters, optimizer, keep=1)
    with pytest.raises(CheckpointError, match=r"holds a::RMS \(\), no moment of this run's"):
        load_state(folder, *make(1))
    with pytest.raises(CheckpointError, match=r"holds a::exp_avg_sq_col \(2,\), no moment"):
        load_state(folder, *make_other(1, factored=False))
    parameters, optimizer = make_other(0, "prodigy")
    step(parameters, optimizer, 1)
    folder = save_state(tmp_path, Progress(step=3), parameters, optimizer, keep=1)
    with pytest.raises(CheckpointError, match=r"holds a::exp_avg \(3, 2\), no moment"):
        load_state(folder, *make_other(1, "schedule-free"))


def test_numbers_of_groups_that_are_not_the_optimiser_s_are_refused(tmp_path):
    parameters, optimizer = make_other(0, "prodigy")
    step(parameters, optimizer, 1)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    path = folder / "optimizer.safetensors"
    tensors = load_file(path)
    for numbers, said in (
        ("[]", r"metadata 'groups' holds \[\] of groups, this run's optimiser has \[\['d', 'd_max'"),
        ('[{"d": 1.0}]', r"holds \[\['d'\]\] of groups"),
        ('[{"d": "far"}]', "metadata: Input should be a valid number"),
        ('[{"d": NaN}]', "metadata"),
    ):
        save_file(tensors, path, {"untouched": "[]", "groups": numbers})
        with pytest.raises(CheckpointError, match=said):
            load_state(folder, *make_other(1, "prodigy"))


def test_only_the_newest_stay(tmp_path):
    parameters, optimizer = make(0)
    for number in (1, 2, 3):
        save_state(tmp_path, Progress(step=number), parameters, optimizer, keep=2)
    assert [path.name for path in list_states(tmp_path)] == ["step-00000002", "step-00000003"]


def test_no_pickle_is_written(tmp_path):
    parameters, optimizer = make(0)
    step(parameters, optimizer, 1)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_another_models_checkpoint_is_refused(tmp_path):
    parameters, optimizer = make(0)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    other = {"a": nn.Parameter(torch.zeros(3, 3)), "b": nn.Parameter(torch.zeros(4))}
    with pytest.raises(CheckpointError, match=r"\(3, 2\).*this run has.*\(3, 3\)"):
        load_state(folder, other, torch.optim.AdamW(other.values()))


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_damaged_file_is_refused(tmp_path, name):
    parameters, optimizer = make(0)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        load_state(folder, *make(1))


def test_half_written_checkpoints_are_not_seen(tmp_path):
    parameters, optimizer = make(0)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    shutil.copytree(folder, tmp_path / ".step-00000002.tmp-1")
    assert list_states(tmp_path) == [folder]


def test_a_tensor_without_a_gradient_so_far_is_gone_on_with(tmp_path):
    parameters, optimizer = make(0)
    parameters["a"].grad = torch.ones(3, 2)
    optimizer.step()
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    step(parameters, optimizer, 2)
    others, other_optimizer = make(9)
    load_state(folder, others, other_optimizer)
    assert not other_optimizer.state[others["b"]]
    step(others, other_optimizer, 2)
    assert all(torch.equal(parameters[name], others[name]) for name in parameters)


def test_moments_that_went_missing_are_refused(tmp_path):
    parameters, optimizer = make(0)
    step(parameters, optimizer, 1)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    moments = load_file(folder / "optimizer.safetensors")
    kept = {key: value for key, value in moments.items() if not key.startswith("b::")}
    save_file(kept, folder / "optimizer.safetensors", {"untouched": "[]"})
    with pytest.raises(CheckpointError, match="holds no moments of b"):
        load_state(folder, *make(1))
    save_file(kept, folder / "optimizer.safetensors")  # as an earlier version wrote them
    with pytest.raises(CheckpointError, match="holds no moments of b"):
        load_state(folder, *make(1))


@pytest.mark.parametrize("untouched", ["{", '"b"', "[1]"])
def test_metadata_that_is_no_list_of_names_is_refused(tmp_path, untouched):
    parameters, optimizer = make(0)
    folder = save_state(tmp_path, Progress(step=1), parameters, optimizer, keep=1)
    save_file({}, folder / "optimizer.safetensors", {"untouched": untouched})
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        load_state(folder, *make(1))
