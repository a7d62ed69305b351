"""What an adapter holds that is saved where a checkpoint was."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


def adapter_at(run_dir: Path, step: int) -> dict[str, Tensor]:
    """Returns a checkpoint's trainable tensors, with the rows of A at zero that no text had reached by then."""
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    tensors, reached = load_file(folder / "trainable.safetensors"), load_file(folder / "tuner.safetensors")["reached"]
    assert 0 < reached.sum() < len(reached)
    tensors["tuner.lowrank_a"][~reached] = 0
    return tensors
