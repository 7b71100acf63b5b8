"""Tasks in processes of this machine, which end with this one, also when it is killed.

The library's own pools do not say over which task a worker died: they give up all tasks at once. Here every worker has
one task at a time and a pipe of its own, so that the task of a dead one is known, and handed out again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from corpora.executors.task import MOST_DEATHS, Outcome, Task, died, do

AHEAD = 2
"""Tasks for each worker that are taken ahead of the oldest one that is not done."""


class Processes:
    """Fresh interpreters, begun when there is a task for them; a single task is done in this process."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self.processor_seconds = 0.0
        self._workers: list[_Worker] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def ordered(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Results in the order of the tasks; see `Executor.ordered`."""
        given = iter(tasks)
        first = list(islice(given, 2))
        if self.num_workers == 1 or len(first) < 2:
            for task in chain(first, given):
                yield task.function(*task.arguments)
            return
        yield from self._shared_out(chain(first, given))

    def _shared_out(self, given: Iterator[Task]) -> Iterator[Any]:
        waiting: deque[_Job] = deque()
        """All whose result is not given yet, in order."""
        queue: deque[_Job] = deque()
        """Those of them that nobody works on."""
        more = True
        try:
            while more or waiting:
                while more and len(waiting) < AHEAD * self.num_workers:
                    task = next(given, None)
                    if task is None:
                        more = False
                        break
                    waiting.append(_Job(task))
                    queue.append(waiting[-1])
                    self._hand_out(queue)
                self._hand_out(queue)
                while waiting and waiting[0].outcome is not None:
                    outcome = waiting.popleft().outcome
                    assert outcome is not None
                    if outcome.error is not None:
                        raise outcome.error
                    yield outcome.result
                if waiting and waiting[0].outcome is None and (len(waiting) >= AHEAD * self.num_workers or not more):
                    self._listen(queue)
        finally:
            for job in waiting:  # nobody wants to know of them; those that run may end
                job.wanted = False

    def _hand_out(self, queue: deque[_Job]) -> None:
        while queue:
            idle = next((worker for worker in self._workers if worker.job is None), None)
            if idle is None and len(self._workers) == self.num_workers:
                return
            if idle is None:
                idle = _Worker()
                self._workers.append(idle)
            job = queue.popleft()
            try:
                idle.give(job)
            except OSError:  # it died while it had nothing to do
                self._workers.remove(idle)
                idle.end()
                queue.appendleft(job)

    def _listen(self, queue: deque[_Job]) -> None:
        """Wait until a worker has something to say, or died."""
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            worker = busy[pipe]
            job = worker.job
            assert job is not None
            try:
                job.outcome = pipe.recv()
            except (EOFError, OSError):
                self._workers.remove(worker)
                worker.end()
                if not job.wanted:
                    continue
                job.num_deaths += 1
                if job.num_deaths >= MOST_DEATHS:
                    raise died(job.task, job.num_deaths, "take fewer workers in the machine profile") from None
                queue.appendleft(job)
                continue
            assert job.outcome is not None
            worker.job = None
            self.processor_seconds += job.outcome.processor_seconds


class _Job:
    """A task on its way."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.outcome: Outcome | None = None
        self.num_deaths = 0
        self.wanted = True


class _Worker:
    """A process and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        resource_tracker.ensure_running()  # begun by the first start otherwise, where it lets interrupts through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited, until `_serve` ignores it
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that its end is the end of the pipe
        self.job: _Job | None = None

    def give(self, job: _Job) -> None:
        """Send a task."""
        self.pipe.send((job.task.function, job.task.arguments))
        self.job = job

    def end(self) -> None:
        """End the process, whatever it does: what it writes has no name yet."""
        self.pipe.close()
        self.process.kill()
        self.process.join()
        self.process.close()


def _serve(pipe: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt of the terminal is the parent's to answer
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(do(function, arguments))
