"""A backbone in shards over two processes answers as a whole one."""

import os
import subprocess
import sys

import pytest

from tests.models.language.causal_folders import save_tiny_gpt2

pytestmark = pytest.mark.distributed

SCRIPT = """
import sys
import torch
from dept_vl.errors import ConfigError
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.system.processes import leave_launch, process_state
from dept_vl.models.sharding import place_model
from dept_vl.settings.load import load_config
from dept_vl.system.extras import is_installed

HAS_PEFT = is_installed("peft")

def build(tuner="dept+lora+prefix-tuning" + "+vera" * HAS_PEFT):
    dept = {"budget_tokens": 9, "num_virtual_tokens": 3, "prompt_init": "random", "allow_nearest": True}
    parts = {"tuner.parts": {"dept": dept, "lora": {"rank": 2}, "prefix-tuning": {}}} if "+" in tuner else {}
    tuner = load_config(None, {"tuner.name": tuner, **parts}).tuner
    model, _ = build_model(ModelConfig(backbone=sys.argv[1]), tuner, max_source_length=16, feature_dim=None, seed=0)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.tuner.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()

def held(model):
    return sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in model.backbone.parameters())

rank = process_state().process_index
ids = torch.randint(2, 30, (3, 6), generator=torch.Generator().manual_seed(rank))
inputs = (ids, torch.ones_like(ids))
tries = LabelTrie.build([[5, 6, 1], [7, 1]])
sharded, whole = build(), build()
place_model(sharded, torch.device("cpu"))
place_model(sharded, torch.device("cpu"))  # a second run of a session finds it done
blocks, kept = whole.backbone.shardable()
cut = sum(p.numel() for block in blocks for p in block.parameters()) - sum(p.numel() for p in kept)
assert held(whole) - held(sharded) == cut // 2 > 0.25 * held(whole), (held(whole), held(sharded), cut)
for beams in (1, 3):
    told = [m.generate(*inputs, num_beams=beams, max_new_tokens=4 + 2 * rank) for m in (sharded, whole)]
    assert torch.equal(*told)
assert torch.equal(*(m.score_labels(*inputs, labels=tries) for m in (sharded, whole)))
for is_checkpointing in (False, True):
    grads = []
    for m in (sharded, whole):
        if is_checkpointing:
            m.train().backbone.recompute_activations()
        torch.manual_seed(rank)
        m(*inputs, ids).loss_per_example.sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in m.tuner.parameters() if p.grad is not None]))
    assert torch.equal(*grads)
try:
    place_model(build("fine-tuning"), torch.device("cpu"))
except ConfigError as error:
    assert "'fine-tuning' trains tensors of the backbone itself, and FSDP shards frozen ones alone" in str(error)
else:
    raise AssertionError("full fine-tuning was sharded")
if HAS_PEFT:
    try:
        place_model(build("dora"), torch.device("cpu"))
    except ConfigError as error:
        assert "'dora' reads whole matrices of the backbone, and FSDP leaves each process a share" in str(error)
    else:
        raise AssertionError("DoRA read shares for matrices")
leave_launch()
"""


def launch(script, folder, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    return subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "shard.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_a_sharded_backbone_answers_as_a_whole_one_and_each_process_holds_half(family, script, t5_folder, tmp_path):
    folder = t5_folder if family == "t5" else save_tiny_gpt2(tmp_path / "gpt2")
    done = launch(script, folder, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version is 1, and frozen backbones are sharded by FSDP 2 only"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params is true, and shards stay on"),
    ],
)
def test_what_is_not_followed_of_the_configuration_is_refused(script, t5_folder, variables, message):
    done = launch(script, t5_folder, ACCELERATE_USE_FSDP="true", **variables)
    assert done.returncode != 0
    assert message in done.stderr
