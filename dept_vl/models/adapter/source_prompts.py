"""The trained prompts of other runs, which a method builds on (`TunerContext.read_prompt`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.announced import TUNER, announced_tensors, empty_tuner, part_of
from dept_vl.models.adapter.files import AdapterConfig, BackboneIdentity, copy_tensors, load_adapter
from dept_vl.models.adapter.identity import backbone_identity
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.base import Backbone
from dept_vl.tuners.base import Tuner

logger = logging.getLogger(__name__)


def prompt_reader(
    find: Callable[[str], Path], backbone: Backbone[Any], model: ModelConfig, tokenize: Callable[[str], list[int]]
) -> Callable[[str], Tensor]:
    """Returns what reads the prompt of a run by its name, for a backbone.

    Args:
        find: From the name of a run to its folder.
        backbone: What the prompts are for.
        model: What that was loaded by.
        tokenize: Its text to ids.
    """

    def read(name: str) -> Tensor:
        identity = backbone_identity(backbone, model.backbone, model.revision)
        return read_source_prompt(find(name), backbone, identity, tokenize)

    return read


def read_source_prompt(
    folder: Path, backbone: Backbone[Any], identity: BackboneIdentity, tokenize: Callable[[str], list[int]]
) -> Tensor:
    """Returns the soft prompt of a trained run, whatever its method, if it has one.

    It is the plain prompt that the method is in evaluation (`Tuner.as_prompt`), else the one that it trains beside
    other tensors (`Tuner.prompt`).

    Args:
        folder: The run's, or an adapter's.
        backbone: What the prompt is for.
        identity: Of that backbone.
        tokenize: Its text to ids.

    Returns:
        (m, d_model) float32 on the CPU.

    Raises:
        CheckpointError: No adapter there; one of another backbone or tokenizer, or of a method without a prompt: what
            differs is named with both sides.
    """

    def expect(saved: AdapterConfig) -> dict[str, Tensor]:
        _check_backbone(folder, saved.backbone, identity)
        tuner = empty_tuner(backbone, saved)
        if _prompt_of(tuner) is None:
            raise CheckpointError(
                f"{folder}: was trained with {saved.tuner.label!r}, which has no soft prompt; expected a run of "
                "prompt-tuning, or of another method with a prompt"
            )
        return announced_tensors(backbone, saved, tuner)

    tensors, saved = load_adapter(folder, expect)
    tuner: Tuner = saved.tuner.build(
        backbone.tuner_context(saved.max_source_length, tokenize=tokenize, tasks=saved.tasks)
    )
    copy_tensors({**tuner.trainable_state(), **tuner.frozen_state()}, part_of(tensors, TUNER), str(folder))
    prompt = _prompt_of(tuner)
    assert prompt is not None  # the same method had one on the meta device
    logger.info("%s: taking its prompt of %d tokens (%s, %s)", folder, len(prompt), saved.tuner.label, saved.task)
    return prompt


def _prompt_of(tuner: Tuner) -> Tensor | None:
    plain, trained = tuner.as_prompt(), tuner.prompt()
    if plain is not None or trained is None:
        return plain
    return trained.detach()


def _check_backbone(folder: Path, theirs: BackboneIdentity, ours: BackboneIdentity) -> None:
    """Refuses a prompt for another backbone; one whose weights are not recorded is said to be so."""
    names = ("family", "d_model", "vocab_size", "num_layers", "num_decoder_layers", "weights_sha256")
    pairs = {key: (asdict(theirs)[key], asdict(ours)[key]) for key in names}
    if theirs.weights_sha256 is None:
        del pairs["weights_sha256"]
        logger.warning("%s: does not record the weights of its backbone %s: not compared", folder, theirs.name)
    problems = [f"{key}={a!r}, here {b!r}" for key, (a, b) in pairs.items() if a != b]
    if problems:
        raise CheckpointError(
            f"{folder}: its prompt is for another backbone ({theirs.name}) than this run's ({ours.name}): "
            f"{'; '.join(problems)}; a prompt means something on its own backbone and tokenizer alone: train one here"
        )
