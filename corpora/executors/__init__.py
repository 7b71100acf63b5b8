"""Who does the tasks of a corpus stage: this process, processes of this machine, or a Dask cluster.

A task is a function of a shared folder and of numbers. It writes one artifact whole or not at all
(`corpora/artifact.py`), so that it does not matter who does it, when, or how often. The machine profile chooses:

    corpora: {executor: processes, workers: 8}                  # the default; else num_threads workers, or the cores
    corpora: {executor: dask, workers: 8}                       # a cluster of this machine, for trying it out
    corpora: {executor: dask, address: "tcp://10.0.0.1:8786"}   # a scheduler that runs; its workers share OUT
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from configs.settings.machine import Machine
from corpora.executors.task import MOST_DEATHS, Task

__all__ = ["MOST_DEATHS", "Executor", "Task", "open_executor"]


class Executor(Protocol):
    """Does tasks. Used as a context, at whose end nothing of it runs any longer on this machine.

    Attributes:
        num_workers: Tasks that it does at a time.
        processor_seconds: Processor time of the tasks that other processes have done.
    """

    num_workers: int
    processor_seconds: float

    def ordered(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Results in the order of the tasks, which are taken from the iterable a few ahead of the results.

        A caller may stop early. Raises what a task raised; RetryableError, which names the task, for one whose workers
        died `MOST_DEATHS` times.
        """
        ...

    def __enter__(self) -> Executor:
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        ...


def open_executor(machine: Machine, folder: Path) -> Executor:
    """The executor that the profile asks for. Args: folder: Shared by all workers; there must be room for scratch."""
    num_workers = machine.corpora.workers or machine.num_threads or len(os.sched_getaffinity(0))
    if machine.corpora.executor == "dask":
        from corpora.executors.dask_cluster import DaskCluster

        return DaskCluster(machine.corpora.address, num_workers, folder)
    from corpora.executors.processes import Processes

    return Processes(num_workers)
