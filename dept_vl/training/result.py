"""What a finished run is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dept_vl.models.parameter_budget import ParameterBudget
from dept_vl.training.checkpoints import Progress


@dataclass(frozen=True)
class TrainResult:
    """What a finished run is.

    Attributes:
        task: Name of the task, or of the tasks: ``rte+cola``.
        run_dir: The run folder.
        metric_name: The metric that picked the best checkpoint.
        progress: Final counters, the best value in the scorer's own scale among them.
        budget: Trainable parameters by group.
        decode: How answers were made at evaluations, ``"generate"`` or ``"score"``; of several tasks perhaps both.
    """

    task: str
    run_dir: Path
    metric_name: str
    progress: Progress
    budget: ParameterBudget
    decode: str
