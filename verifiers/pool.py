"""Judging in killable worker processes: hostile or endless work in a verifier cannot stop, starve or pay.

    with VerifierPool(num_workers=2, deadline_s=5.0, max_no_verdict=0.05) as pool:
        verdicts = pool.judge([(task, completion), ...])       # in order
        future = pool.submit(task, completion)                  # while other work goes on
        for index, verdict in pool.stream(pairs): ...           # as they come; `pairs` may be a generator
        verdict = await pool.judge_async(task, completion)
        async for index, verdict in pool.stream_async(pairs): ...

A completion whose judgement takes longer than `deadline_s` or more memory than `memory_mb` gets its worker killed
(SIGKILL, with every process below it) and is judged once more in a fresh worker; if that fails again it is INCORRECT
with the reason `over_budget`. A worker that dies without having exceeded a limit, or a verifier that raises, is our own
fault: once more in a fresh worker, then NO_VERDICT with the reason. A verifier that cannot be imported gives NO_VERDICT
at once. A verdict does not depend on the order, the number of workers or what else was judged (see `serving`).

Two guards: with `max_no_verdict` the pool stops when a larger share of verdicts is missing, and whoever waits for one
gets `TooManyNoVerdicts`, which names the worst reason; and a pool that is silent for `patience_s` although something is
awaited says in the log what that is.

Each worker is a fresh interpreter (no fork: nothing of torch or CUDA is inherited), served by one thread here, and
dies with this process even after `kill -9`, with all that it started. Easy problems travel in chunks; each still has
its own deadline.

What this does not do: it is no sandbox. Workers have the user's rights, files and network, and run trusted verifiers
on untrusted text, not untrusted code.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from configs.errors import UserError
from verifiers import registry, streaming
from verifiers.api import Task, Verdict
from verifiers.breaker import Breaker, TooManyNoVerdicts, Watchdog
from verifiers.serving import Job, Worker

__all__ = ["TooManyNoVerdicts", "VerifierPool"]

MAX_CHUNK = 64
"""Problems sent to a worker at once."""
DEFAULT_DEADLINE_S = 5.0
DEADLINES_S = {"code": 30.0, "code_hidden": 30.0}
"""Of verifiers with a clock of their own, which must run out first: then they can say what was too slow."""
PATIENCE_S = 60.0
"""Seconds of silence before the watchdog speaks."""

log = logging.getLogger(__name__)


class VerifierPool:
    """Judges completions in `num_workers` processes. Thread-safe; use it as a context manager or call `close()`.

    Args:
        num_workers: Processes; each judges one completion at a time.
        deadline_s: Seconds for one judgement, without those in which it waits for a processor; by default what suits
            the task's verifier.
        memory_mb: Megabytes that judging may take above what the imported verifier takes at rest.
        verifier: Registry name of the verifier for all tasks; None takes each task's own.
        max_no_verdict: Share of the latest verdicts that may be missing, in [0, 1]; None (and 1) for no limit.
        patience_s: Seconds without a verdict after which the log says what is awaited.
    """

    def __init__(
        self,
        num_workers: int = 2,
        deadline_s: float | None = None,
        memory_mb: int = 2048,
        verifier: str | None = None,
        max_no_verdict: float | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        for name, value in (
            ("num_workers", num_workers),
            ("deadline_s", deadline_s),
            ("memory_mb", memory_mb),
            ("patience_s", patience_s),
        ):
            if value is not None and not value > 0:
                raise UserError(f"{name}: {value!r}; allowed: more than 0")
        self.num_workers, self.deadline_s, self.memory_mb, self.verifier = num_workers, deadline_s, memory_mb, verifier
        self._known: set[str] = set()
        if verifier is not None:
            self._check_name(verifier)
        self._breaker = None if max_no_verdict is None else Breaker(max_no_verdict)
        self._opened: TooManyNoVerdicts | None = None
        self._watchdog = Watchdog(patience_s, self.awaited, log.warning)
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._workers = [Worker(self) for _ in range(num_workers)]

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, task: Task, completion: str, verifier: str | None = None) -> Future[Verdict]:
        """Start judging; the future gives the verdict.

        Args:
            task: The problem.
            completion: What is judged.
            verifier: Judges it, whatever the task names; None takes the pool's, else the task's own.

        Raises:
            UserError: for an unknown verifier, or metadata that are not JSON.
            TooManyNoVerdicts: if more verdicts are missing than may be; a waiting future raises it too.
        """
        job = self._job(task, completion, verifier)
        self._put([job])
        return job.future

    def judge(self, pairs: Sequence[tuple[Task, str]]) -> list[Verdict]:
        """Verdicts of all pairs, in order. Raises like `submit`."""
        jobs = [self._job(task, completion) for task, completion in pairs]
        self._put(jobs)
        try:
            return [job.future.result() for job in jobs]
        except BaseException:  # an interrupt must not leave the rest to be judged
            for job in jobs:
                job.future.cancel()
            raise

    def stream(self, pairs: Iterable[tuple[Task, str]], max_pending: int = 0) -> Iterator[tuple[int, Verdict]]:
        """Position and verdict of each pair, as verdicts come. Raises like `submit`.

        `pairs` is drawn from as there is room, so that it may be endless or still be made (rollouts); what is done by
        then is handed out between two draws. `max_pending` bounds what is in work (0: what keeps all workers busy).
        """
        return streaming.stream(self.submit, pairs, max_pending or self._room())

    async def judge_async(self, task: Task, completion: str) -> Verdict:
        """One verdict, while the event loop goes on. Raises like `submit`."""
        return await asyncio.wrap_future(self.submit(task, completion))

    def stream_async(
        self, pairs: Iterable[tuple[Task, str]] | AsyncIterable[tuple[Task, str]], max_pending: int = 0
    ) -> AsyncIterator[tuple[int, Verdict]]:
        """`stream` for an event loop; `pairs` may be asynchronous."""
        return streaming.stream_async(self.submit, pairs, max_pending or self._room())

    def close(self) -> None:
        """Kill the workers and cancel what has no verdict yet. Safe to call twice."""
        with self._wake:
            self._closed = True
            jobs, self._jobs = list(self._jobs), deque()
            self._wake.notify_all()
        self._watchdog.stop()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for job in jobs:
            job.future.cancel()

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that judge now."""
        return [worker.judge for worker in self._workers if worker.judge]

    def awaited(self) -> str:
        """What the pool is at, for people: each busy worker's problem and state; empty where nothing is awaited."""
        busy = [text for text in (worker.awaited() for worker in self._workers) if text]
        num_queued = len(self._jobs)
        return "; ".join([*busy, f"{num_queued} more in the queue"] if num_queued else busy)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def take(self) -> list[Job]:
        """The next chunk, when there is one; empty when the pool closes. Called by the workers' threads."""
        with self._wake:
            while not self._jobs and not self._closed:
                self._wake.wait()
            if self._closed:
                return []
            num = max(1, min(MAX_CHUNK, len(self._jobs) // (2 * self.num_workers)))
            return [self._jobs.popleft() for _ in range(min(num, len(self._jobs)))]

    def settle(self, job: Job, verdict: Verdict) -> None:
        """Hand a verdict to whoever waits for it, and count it. Called by the workers' threads."""
        refused: list[Job] = []
        self._watchdog.feed()
        with self._wake:
            if self._breaker is not None and self._opened is None and not self._closed:
                self._opened = self._breaker.note(verdict, f"verifier {job.verifier!r}, task {job.name!r}")
                if self._opened is not None:
                    refused, self._jobs = list(self._jobs), deque()
        job.future.set_result(verdict)
        for each in refused:
            if each.future.set_running_or_notify_cancel():
                each.future.set_exception(self._opened)

    def _room(self) -> int:
        return 4 * MAX_CHUNK * self.num_workers

    def _job(self, task: Task, completion: str, verifier: str | None = None) -> Job:
        name = verifier or self.verifier or task.verifier
        self._check_name(name)
        try:
            request = json.dumps({"verifier": name, "task": _as_dict(task), "completion": completion})
        except (TypeError, ValueError) as error:
            raise UserError(
                f"task {task.id!r}: metadata: not JSON ({error}); allowed: texts, numbers, lists, objects"
            ) from error
        return Job(request, task.id, name, self.deadline_s or DEADLINES_S.get(name, DEFAULT_DEADLINE_S))

    def _check_name(self, name: str) -> None:
        if name not in self._known:
            registry.check_name(name)
            self._known.add(name)

    def _put(self, jobs: list[Job]) -> None:
        with self._wake:
            if self._closed:
                raise RuntimeError("the pool is closed; make a new VerifierPool")
            if self._opened is not None:
                raise self._opened
            self._jobs.extend(jobs)
            if not self._threads:
                self._threads = [
                    threading.Thread(target=worker.run, daemon=True, name="verifier-pool") for worker in self._workers
                ]
                for thread in self._threads:
                    thread.start()
                self._watchdog.start()
            elif len(self._jobs) == len(jobs) and not any(worker.doing for worker in self._workers):
                self._watchdog.feed()  # the silence before was no wait
            self._wake.notify_all()


def _as_dict(task: Task) -> dict[str, Any]:
    return {**vars(task), "metadata": dict(task.metadata)}
