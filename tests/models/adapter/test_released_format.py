"""Reading and writing the released code's adapter files."""

import json
import math
import os
import pickle
import re
import shutil

import pytest
import torch

from dept_vl.cli import main
from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.released_format import (
    ADAPTER_CONFIG_FILE,
    LOWRANK_A,
    LOWRANK_B,
    PROMPT,
    WEIGHTS_FILE,
    read_released,
)
from dept_vl.tuners import DeptConfig
from dept_vl.tuners.context import TunerContext

M, R, S, D = 3, 2, 8, 16
SETTINGS = {
    "peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": "t5-base",
    "num_virtual_tokens": M, "r": R, "lora_alpha": 8, "max_length": S, "token_dim": D, "num_layers": 2,
    "num_transformer_submodules": 1, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "is the cube red",
}  # fmt: skip


def tensors():
    generator = torch.Generator().manual_seed(3)
    shapes = {PROMPT: (M, D), LOWRANK_A: (S, R), LOWRANK_B: (R, D)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(folder, content=None, **settings):
    folder.mkdir(exist_ok=True)
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps({**SETTINGS, **settings}))
    torch.save(tensors() if content is None else content, folder / WEIGHTS_FILE)
    return folder


@pytest.mark.parametrize(
    ("source", "task", "m", "r"), [("excerpt", "cola", 80, 15), ("shared_data", "sst2", 60, 30)], ids=["cola", "sst2"]
)
def test_a_published_adapter_is_read_to_the_bit_and_computes_what_the_released_code_does(request, source, task, m, r):
    folder = request.getfixturevalue(source) / "dept_official" / task
    adapter = read_released(folder)
    raw = torch.load(folder / WEIGHTS_FILE, weights_only=True, map_location="cpu")
    assert {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()} == {
        "tuner.soft_prompt": (m, 768),
        "tuner.lowrank_a": (256, r),
        "tuner.lowrank_b": (r, 768),
    }
    assert sum(tensor.numel() for tensor in adapter.tensors.values()) == 76_800
    assert torch.equal(adapter.tensors["tuner.soft_prompt"], raw[PROMPT])
    settings = adapter.tuner_settings()
    assert settings["prompt_init_text"] == "Classify this text is postive or not:"
    assert adapter.origin.lowrank == "imported"
    tuner = DeptConfig(**settings).empty(TunerContext(768, 256))
    tuner.load_state_dict({name.removeprefix("tuner."): tensor for name, tensor in adapter.tensors.items()})
    scaling = 8 / math.sqrt(r)
    update = tuner.embed(torch.zeros(1, 256, 768))[0, m:]
    assert tuner.scaling == scaling
    torch.testing.assert_close(update, scaling * (raw[LOWRANK_A] @ raw[LOWRANK_B]), rtol=1e-6, atol=1e-6)


def assert_pair_is_missed(folder, m, r):
    with pytest.raises(CheckpointError, match=rf"r={r}: .*lora_embedding_A.*lora_embedding_B.*--prompt-only"):
        read_released(folder)
    adapter = read_released(folder, prompt_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items()} == {"tuner.soft_prompt": (m, 768)}
    assert adapter.origin.lowrank == "not released"
    assert adapter.tuner_settings()["name"] == "prompt-tuning"


def test_a_published_adapter_without_its_pair_is_refused_and_says_what_is_missing(excerpt, tmp_path):
    """Three were published so; here the pair of a fourth is taken out of its file."""
    folder = shutil.copytree(excerpt / "dept_official" / "cola", tmp_path / "cola")
    content = torch.load(folder / WEIGHTS_FILE, weights_only=True, map_location="cpu")
    torch.save({PROMPT: content[PROMPT]}, folder / WEIGHTS_FILE)
    assert_pair_is_missed(folder, 80, 15)


def test_every_adapter_published_without_its_pair_is_refused(shared_data):
    for task, r in (("nq", 24), ("hotpotqa", 24), ("superglue-wic", 30)):
        assert_pair_is_missed(shared_data / "dept_official" / task, 60, r)


def test_a_published_folder_without_weights_is_refused(excerpt):
    with pytest.raises(CheckpointError, match=r"mrpc: adapter_model\.bin or adapter_model\.safetensors is missing"):
        read_released(excerpt / "dept_official" / "mrpc")


def test_prompt_only_leaves_a_pair_that_is_there(tmp_path):
    adapter = read_released(write(tmp_path / "a"), prompt_only=True)
    assert (set(adapter.tensors), adapter.origin.lowrank) == ({"tuner.soft_prompt"}, "left out")


def test_prompt_tuning_of_the_released_code_is_read(tmp_path):
    folder = write(tmp_path / "a", {PROMPT: torch.ones(M, D)}, peft_type="PROMPT_TUNING")
    adapter = read_released(folder)
    assert (adapter.tuner_settings()["name"], adapter.origin.lowrank) == ("prompt-tuning", "none")
    with pytest.raises(CheckpointError, match="without --prompt-only"):
        read_released(folder, prompt_only=True)


def test_parameters_and_half_precision_are_read_as_float32(tmp_path):
    content = {name: torch.nn.Parameter(tensor.bfloat16()) for name, tensor in tensors().items()}
    adapter = read_released(write(tmp_path / "a", content))
    assert torch.equal(adapter.tensors["tuner.soft_prompt"], tensors()[PROMPT].bfloat16().float())
    assert not any(tensor.requires_grad for tensor in adapter.tensors.values())


class _Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path, capsys):
    trace = tmp_path / "trace"
    folder = write(tmp_path / "cola", {**tensors(), "x": _Trap(trace)})
    assert main(["import-released", str(folder), "--out", str(tmp_path / "run"), "--task", "vqa"]) == 2
    assert "nothing in it was executed" in capsys.readouterr().err
    assert not trace.exists()
    assert not (tmp_path / "run").exists()
    torch.load(folder / WEIGHTS_FILE, weights_only=False)  # the trap does work
    assert trace.exists()


def test_an_old_style_pickle_with_code_is_refused_and_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    folder = write(tmp_path / "a")
    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps({"x": _Trap(trace)}, protocol=2))
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        read_released(folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.ones(1)], r"flat dict of tensors by name, got list"),
        ({"model": {PROMPT: torch.ones(M, D)}}, r"a dict of 'model': dict"),
        ({PROMPT: torch.ones(M, D), "step": 3}, r"'step': int"),
        ({**tensors(), "extra": torch.ones(1)}, r"unexpected extra"),
        ({name: tensor for name, tensor in tensors().items() if name != PROMPT}, r"missing prompt_embeddings"),
        ({name: tensor for name, tensor in tensors().items() if name != LOWRANK_B}, r"missing .*lora_embedding_B"),
        ({**tensors(), PROMPT: torch.ones(M, D, dtype=torch.int64)}, r"torch\.int64"),
        ({**tensors(), PROMPT: torch.full((M, D), math.nan)}, r"not finite.*prompt_embeddings"),
    ],
)
def test_anything_but_the_expected_tensors_is_refused(tmp_path, content, match):
    with pytest.raises(CheckpointError, match=match):
        read_released(write(tmp_path / "a", content))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_virtual_tokens": 4}, r"prompt_embeddings is (3, 16), adapter_config.json says (4, 16)"),
        ({"r": 5}, r"lora_embedding_A is (8, 2), adapter_config.json says (8, 5)"),
        ({"max_length": 9}, r"lora_embedding_A is (8, 2), adapter_config.json says (9, 2)"),
        ({"token_dim": 17}, r"lora_embedding_B is (2, 16), adapter_config.json says (2, 17)"),
        ({"peft_type": "LORA"}, r"peft_type: "),
        ({"task_type": "CAUSAL_LM"}, r"task_type: "),
        ({"num_transformer_submodules": 2}, r"num_transformer_submodules: "),
        ({"max_length": None}, r"PROMPT_TUNING_LORA needs r and max_length"),
    ],
)
def test_settings_that_do_not_describe_the_tensors_are_refused(tmp_path, settings, match):
    with pytest.raises(CheckpointError, match=re.escape(match)):
        read_released(write(tmp_path / "a", **settings))


def test_a_truncated_file_is_refused(tmp_path):
    folder = write(tmp_path / "a")
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: refused"):
        read_released(folder)
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is missing"):
        read_released(folder)
