"""One configuration, several seeds: mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dept_vl.experiments.folder import open_experiment, settings_tree
from dept_vl.experiments.plan import check_seeds, seeds_record
from dept_vl.experiments.runs import FinishedRun, finish, run_record, score
from dept_vl.experiments.scores import STD, Spread, spread, spread_records, spreads
from dept_vl.runs.folder import describe_run
from dept_vl.runs.session import Session
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import write_json
from dept_vl.system.processes import process_state

SEEDS_FILE = "seeds.json"


@dataclass(frozen=True)
class SeedsResult:
    """What several seeds of one configuration reached.

    Attributes:
        runs: One a seed, scored on ``test``.
        val: The primary metric on ``val``.
        test: Every metric on ``test``.
        path: Where all of it was written.
    """

    runs: tuple[FinishedRun, ...]
    val: Spread
    test: dict[str, Spread]
    path: Path


def train_seeds(
    config: TrainConfig,
    data_dir: Path,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    overwrite: bool = False,
    session: Session | None = None,
) -> SeedsResult:
    """Trains and scores ``<output_dir>/seed-<n>`` for every seed and writes ``<output_dir>/seeds.json``.

    Args:
        config: The settings; `seed` and `output_dir` are replaced.
        data_dir: Prepared data.
        seeds: Different from each other.
        resume: Go on in the folder: finished seeds are kept, others may be added.
        overwrite: Replace an earlier result of several seeds.
        session: Shared with other runs of this process.

    Raises:
        ConfigError, DataError, CheckpointError: As `train`; a seed is given twice.
    """
    check_seeds(seeds)
    session = session or Session()
    folder = config.run_dir
    open_experiment(folder, "seeds", seeds_record(config), resume=resume, overwrite=overwrite)
    runs = tuple(
        score(finish(run_config, data_dir, session), data_dir, session) for run_config in seed_configs(config, seeds)
    )
    result = SeedsResult(
        runs, spread([run.val for run in runs]), spreads([run.test or {} for run in runs]), folder / SEEDS_FILE
    )
    if process_state().is_main_process:
        _write(result)
    return result


def seed_configs(config: TrainConfig, seeds: Sequence[int]) -> list[TrainConfig]:
    """Returns the settings of every seed's run."""
    return [replace(config, seed=seed, output_dir=str(config.run_dir / f"seed-{seed}")) for seed in seeds]


def _write(result: SeedsResult) -> None:
    first = result.runs[0]
    write_json(
        result.path,
        {
            "task": first.config.task,
            "split": "test",
            "primary_metric": first.metric,
            "seeds": [run.config.seed for run in result.runs],
            "val": asdict(result.val),
            "metrics": spread_records(result.test),
            "std": STD,
            "runs": [run_record(run) for run in result.runs],
            "config": settings_tree(first.config),
            "made_by": describe_run(),
        },
    )
