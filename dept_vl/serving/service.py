"""Everything one server works with: adapters, queue, image cache and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dept_vl.inference.answer import Answer
from dept_vl.serving.adapters import AdapterTable, AskedRow
from dept_vl.serving.batching import BatchQueue
from dept_vl.serving.engine import Engine
from dept_vl.serving.image_cache import LeastRecentlyUsed
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.metrics import Metrics
from dept_vl.serving.pictures import Features
from dept_vl.serving.startup import RunReader, ServedRun
from dept_vl.system.processes import choose_device


class Service:
    """One server without its HTTP.

    Attributes:
        limits: Its numbers.
        table: Its adapters.
        cache: Features of images.
        metrics: What it counts.
        queue: What waits to be answered.
    """

    def __init__(
        self,
        reader: RunReader,
        runs: Sequence[ServedRun],
        limits: ServeLimits,
        *,
        device: str | torch.device | None = None,
        wrap: Callable[[Callable[[Sequence[AskedRow]], list[Answer]]], Callable[[Sequence[AskedRow]], list[Answer]]]
        | None = None,
    ) -> None:
        """Loads the runs and starts the worker.

        Args:
            reader: Reads runs that are loaded later; it knows of none yet.
            runs: From `read_runs`.
            limits: Numbers of the server.
            device: Where the models are; None: an accelerator if there is one, else the CPU.
            wrap: Puts something around the answering of a batch, as a test or a profiler does.

        Raises:
            ConfigError, CheckpointError: As `AdapterTable.load`, or there is no such device.
        """
        self.limits = limits
        self.metrics = Metrics()
        self.cache: LeastRecentlyUsed[Features] = LeastRecentlyUsed(limits.image_cache)
        self.table = AdapterTable(reader, choose_device(device))
        for run in runs:
            self.table.load(run)
        answer = Engine(self.table.session, self.table.device, self.cache, self.metrics).answer
        self.queue: BatchQueue[AskedRow, Answer] = BatchQueue(
            wrap(answer) if wrap else answer,
            lambda row: row.batch_key,
            max_batch=limits.max_batch,
            max_wait_ms=limits.max_wait_ms,
            max_queue=limits.max_queue,
        )
