"""Which part of some work is this process's, where the processes know nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dept_vl.errors import ConfigError

_LAUNCH = ("RANK", "WORLD_SIZE")
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
_FIRST_AND_STEP = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")


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
        ConfigError: One of both is given, or the rank is none of the world, or a variable is no number; or the tasks of
            an array are numbered with gaps that are not of one step.
    """
    if (rank is None) != (world is None):
        raise ConfigError("--rank and --world: give both, or neither (torchrun's and SLURM's variables then say it)")
    if rank is not None and world is not None:
        return _checked(rank, world, "--rank, --world")
    launch, array = _checked(*_numbers(environment, _LAUNCH), ", ".join(_LAUNCH)), _in_array(environment)
    return Worker(array.rank * launch.world + launch.rank, array.world * launch.world)


def _in_array(environment: Mapping[str, str]) -> Worker:
    """Returns the place of an array's task, whose numbers start anywhere and are of one step."""
    number, world = _numbers(environment, _ARRAY)
    first, step = _numbers(environment, _FIRST_AND_STEP)
    rank, rest = divmod(number - first, max(step, 1))
    if rest or not 0 <= rank < world:
        raise ConfigError(
            f"{', '.join(_ARRAY)}: {number} is none of {world} numbers from {first} on in steps of {step}; number the "
            "tasks so (--array=0-7), or give --rank and --world"
        )
    return Worker(rank, world)


def _numbers(environment: Mapping[str, str], names: tuple[str, str]) -> tuple[int, int]:
    """Returns what two variables say; 0 and 1 where they are not set."""
    found = [environment.get(name) for name in names]
    if found == [None, None]:
        return 0, 1
    try:
        first, second = (int(str(value)) for value in found)
    except ValueError:
        raise ConfigError(
            f"{', '.join(names)}: expected two whole numbers, got {found[0]!r} and {found[1]!r}; give --rank and "
            "--world"
        ) from None
    return first, second


def _checked(rank: int, world: int, where: str) -> Worker:
    if not 0 <= rank < world:
        raise ConfigError(f"{where}: process {rank} of {world}: ranks go from 0 to {max(world, 1) - 1}")
    return Worker(rank, world)
