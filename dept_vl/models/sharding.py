"""The frozen backbone cut up over processes (FSDP), as accelerate's own configuration asks for it.

Only frozen weights are sharded, each block gathered while it computes. The trainable tensors are few, and every process
keeps them whole, so that optimiser, checkpoints and adapters are those of any other run.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

from dept_vl.errors import ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.language.base import Backbone
from dept_vl.system.processes import process_state


def place_model(model: AdaptedModel, device: torch.device) -> None:
    """Moves a model to this process's device, its backbone in shards where ``accelerate launch`` asks for FSDP.

    Read from the variables that the launcher sets, because accelerate itself leaves FSDP out on a CPU.

    Raises:
        ConfigError: It asks for FSDP 1, or for weights offloaded to the CPU; or the method trains tensors of the
            backbone itself, which are frozen in a shard, or reads whole matrices.
    """
    is_asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if is_asked and process_state().num_processes > 1:
        if any(parameter.requires_grad for parameter in model.backbone.parameters()):
            raise ConfigError(
                f"tuner: {model.tuner.config.label!r} trains tensors of the backbone itself, and FSDP shards frozen "
                "ones alone here; launch without FSDP, or choose a method with tensors of its own"
            )
        if model.tuner.config.reads_weights:
            raise ConfigError(
                f"tuner: {model.tuner.config.label!r} reads whole matrices of the backbone, and FSDP leaves each "
                "process a share of them; launch without FSDP, or choose another method"
            )
        if not model.backbone.is_sharded:
            _shard(model.backbone, device)
    model.to(device)


def _shard(backbone: Backbone[Any], device: torch.device) -> None:
    """Leaves each process its share of the blocks' weights.

    ``fsdp_reshard_after_forward`` of accelerate's configuration is followed; what is one unit is
    `Backbone.shardable`'s choice and not the configuration's.
    """
    plugin = FullyShardedDataParallelPlugin()  # from the launcher's variables
    if plugin.fsdp_version != 2:
        raise ConfigError(
            f"accelerate's configuration: fsdp_version is {plugin.fsdp_version}, and frozen backbones are sharded by "
            "FSDP 2 only; set fsdp_version: 2"
        )
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise ConfigError(
            "accelerate's configuration: fsdp_offload_params is true, and shards stay on their device here; set "
            "fsdp_offload_params: false, and model.dtype: bfloat16 for half the memory"
        )
    mesh = init_device_mesh(device.type, (process_state().num_processes,))
    blocks, whole = backbone.shardable()
    for block in blocks:
        fully_shard(
            block,
            mesh=mesh,
            reshard_after_forward=plugin.reshard_after_forward,
            ignored_params=whole,
        )
    backbone.is_sharded = True
