"""Which part of some work is this process's, where the processes know nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dept_vl.errors import ConfigError

_LAUNCH = ("RANK", "WORLD_SIZE")
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
_ARRAY_START = "SLURM_ARRAY_TASK_MIN"


@dataclass(frozen=True)
class Worker:
    """One of several processes.

    Attributes:
        rank: Which, from 0.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1


def find_worker(rank: int | None, world: int | None, environment: Mapping[str, str]) -> Worker:
    """Returns this process's place: the one that is given, or by torchrun's variables and those of a SLURM array.

    In a launch of several processes within a task of an array both count.

    Args:
        rank: What a flag says.
        world: What a flag says.
        environment: The process's variables.

    Raises:
        ConfigError: One of both is given, or the rank is none of the world, or a variable is no number.
    """
    if (rank is None) != (world is None):
        raise ConfigError("--rank and --world: give both, or neither (torchrun's and SLURM's variables then say it)")
    if rank is not None and world is not None:
        return _checked(rank, world, "--rank, --world")
    launch = _read(environment, _LAUNCH)
    array = _read(environment, _ARRAY, environment.get(_ARRAY_START, "0"))
    return Worker(array.rank * launch.world + launch.rank, array.world * launch.world)


def _read(environment: Mapping[str, str], names: tuple[str, str], start: str = "0") -> Worker:
    """Returns what two variables say; a single process where they are not set."""
    found = [environment.get(name) for name in names]
    if found == [None, None]:
        return Worker()
    try:
        rank, world = (int(str(value)) for value in found)
        return _checked(rank - int(start), world, ", ".join(names))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{', '.join(names)}: expected two whole numbers, got {found[0]!r} and {found[1]!r}; give --rank and "
            "--world"
        ) from None


def _checked(rank: int, world: int, where: str) -> Worker:
    if not 0 <= rank < world:
        raise ConfigError(f"{where}: process {rank} of {world}: ranks go from 0 to {max(world, 1) - 1}")
    return Worker(rank, world)
