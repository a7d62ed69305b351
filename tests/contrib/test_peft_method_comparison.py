"""The files for PEFT's method comparison: they parse, count what this package counts, and compute what it computes."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from setuptools import find_namespace_packages
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig

from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.dept.config import DeptConfig
from dept_vl.tuners.rates import PROMPT_RATE, UPDATE_RATE
from tests.models.language.causal_folders import save_tiny_llama

peft = pytest.importorskip("peft", reason="the extra `peft` is not installed")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "contrib" / "peft_method_comparison"
EXPERIMENTS = sorted(path.parent for path in FOLDER.glob("experiments/*/*/adapter_config.json"))
PROMPT_TUNING = 200 * 3072
"""Trained numbers of the benchmark's prompt-tuning experiments."""

TEXTS = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def dept():
    spec = importlib.util.spec_from_file_location("contrib_dept", FOLDER / "dept.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    module.register()
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def model(dept, folder):
    config = dept.DeptConfig(
        num_virtual_tokens=3, rank=2, max_length=8, token_dim=16, num_layers=2, num_attention_heads=4,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(0)
    made = dept.DeptModel(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config).eval()
    nn.init.normal_(made.lowrank_b, std=0.5)
    return made


def test_there_are_experiments_and_the_wheel_has_none_of_it():
    assert [path.name for path in EXPERIMENTS] == ["llama-3.2-3B-tokens150-rank40", "llama-3.2-3B-tokens80-rank96"]
    text = (ROOT / "setup.py").read_text()
    assert "contrib" not in text
    assert not any("contrib" in name for name in find_namespace_packages(str(ROOT), include=["dept_vl*", "data_prep*"]))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_configurations_parse_and_train_as_many_numbers_as_prompt_tuning(dept, path):
    config = peft.PeftConfig.from_pretrained(str(path))
    assert type(config) is dept.DeptConfig
    assert path.name == f"llama-3.2-3B-tokens{config.num_virtual_tokens}-rank{config.rank}"
    assert config.num_parameters == PROMPT_TUNING
    own = DeptConfig(num_virtual_tokens=config.num_virtual_tokens, rank=config.rank, budget_tokens=200)
    with torch.device("meta"):
        tuner = own.empty(TunerContext(config.token_dim, config.max_length))
    assert sum(parameter.numel() for parameter in tuner.parameters()) == config.num_parameters
    assert own.lowrank_init_std == config.lowrank_init_std


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_training_parameters_are_those_that_the_benchmark_knows(path):
    given = json.loads((path / "training_params.json").read_text())
    assert given.keys() <= {"optimizer_type", "optimizer_kwargs", "lr_scheduler", "max_steps", "grad_norm_clip"}
    assert given["optimizer_kwargs"] == {"lr": PROMPT_RATE, "lowrank_lr": UPDATE_RATE, "weight_decay": 0.0}


def test_what_it_reads_is_what_this_package_reads(model, folder):
    tuner = DeptConfig(
        num_virtual_tokens=3, rank=2, budget_tokens=6, allow_nearest=True, row_alignment="first-token"
    )  # fmt: skip
    ours, _ = build_model(ModelConfig(backbone=str(folder)), tuner, max_source_length=8, feature_dim=None, seed=0)
    with torch.no_grad():
        for name in ("soft_prompt", "lowrank_a", "lowrank_b"):
            getattr(ours.tuner, name).copy_(getattr(model, name))
    ours.eval().backbone.reads_once = False  # a row has all that it reads
    target = torch.tensor([[12, 13], [14, 15]])
    embeds, mask = model._joined(TEXTS, MASK)
    for row, size in enumerate(MASK.sum(dim=1).tolist()):
        ids = TEXTS[row : row + 1, :size]
        read = ours.joint_input(ids, torch.ones_like(ids)).inputs_embeds[0]
        torch.testing.assert_close(embeds[row][mask[row].bool()], read, rtol=1e-6, atol=1e-6)
        logits = ours(ids, torch.ones_like(ids), target[row : row + 1]).logits[0, 0]
        theirs = model(TEXTS, MASK).logits[row, 3 + size - 1]
        torch.testing.assert_close(theirs, logits, rtol=1e-5, atol=1e-5)


def test_padding_on_either_side_and_batch_mates_change_nothing(model):
    left = torch.tensor([[4, 5, 6, 7, 8], [0, 0, 9, 10, 11]])
    masks = MASK, torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    right_logits, left_logits = model(TEXTS, masks[0]).logits, model(left, masks[1]).logits
    torch.testing.assert_close(right_logits[0], left_logits[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(right_logits[1, 3:6], left_logits[1, 5:8], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_generated_tokens_have_the_rows_that_they_had_in_training(model):
    ids, mask = torch.tensor([[4, 5, 6, 7], [0, 9, 10, 11]]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    settings = GenerationConfig(do_sample=False, max_length=11, max_new_tokens=None, pad_token_id=0, eos_token_id=31)
    made = model.generate(ids, mask, generation_config=settings)
    assert made.shape == (2, 11)  # three more than max_length of A
    for row, begin in ((0, 0), (1, 1)):
        text = ids[row : row + 1, begin:]
        for expected in made[row, 4:].tolist():
            logits = model(text, torch.ones_like(text)).logits[0, -1]
            assert int(logits.argmax()) == expected
            text = torch.cat([text, logits.argmax().reshape(1, 1)], dim=1)


def test_beams_are_refused(model):
    with pytest.raises(ValueError, match="num_beams: DePT generates with one beam here, got 3"):
        model.generate(TEXTS, MASK, generation_config=GenerationConfig(num_beams=3))


def test_only_its_own_numbers_are_trained_each_at_its_rate(dept, model):
    frozen = {name: tensor.clone() for name, tensor in model.base_model.state_dict().items()}
    optimizer = dept.create_dept_optimizer(model, lr=PROMPT_RATE, lowrank_lr=UPDATE_RATE)
    size = float(model.base_model.get_input_embeddings().weight.pow(2).mean().sqrt())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4 * size, 0.02, 0.02 * size])
    assert [group["lr"] for group in dept.create_dept_optimizer(model, lr=0.3, lowrank_lr=5e-4).param_groups] == [
        0.3, 5e-4, 5e-4,
    ]  # fmt: skip
    before = {name: tensor.detach().clone() for name, tensor in model._own().items()}
    model(TEXTS, MASK, labels=TEXTS).loss.backward()
    optimizer.step()
    assert all(not torch.equal(before[name], tensor) for name, tensor in model._own().items())
    assert all(torch.equal(frozen[name], tensor) for name, tensor in model.base_model.state_dict().items())
    assert model.get_nb_trainable_parameters()[0] == 3 * 16 + (8 + 16) * 2


def test_the_base_model_answers_alone_and_a_checkpoint_has_three_tensors(model, tmp_path):
    with model.disable_adapter():
        alone = model(TEXTS, MASK).logits
    torch.testing.assert_close(alone, model.base_model(TEXTS, attention_mask=MASK).logits)
    model.save_pretrained(str(tmp_path))
    assert load_file(tmp_path / "adapter_model.safetensors").keys() == {"soft_prompt", "lowrank_a", "lowrank_b"}
    assert peft.PeftConfig.from_pretrained(str(tmp_path)).rank == 2
