"""Tasks on a Dask cluster: that of a running scheduler, or one of this machine.

`distributed` itself is used, not prefect-dask: a stage is a plain command that knows nothing of Prefect
(docs/decisions/0004-corpus-tasks-on-dask.md).

What the workers need: this project, the same files of it; and the folder OUT under the same path. Both are checked
before anything is done, the code once more by each worker that joins later. They do not need the sources, the base
checkpoint or the benchmarks: what of these they use is written to the folder.

A worker that dies has its tasks handed to another one by the scheduler, as often as its `allowed-failures` says (3).
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from configs.errors import RetryableError, UserError
from corpora.executors.task import MOST_DEATHS, Outcome, Task, died, do
from corpora.version import code_digest

AHEAD = 2
"""Tasks for each worker that are taken ahead of the oldest one that is not done."""
CONNECT_S = 30
FIRST_WORKER_S = 120
FIELD = "machine.corpora"


class DaskCluster:
    """A client of a scheduler, with a cluster of its own where no address is given."""

    def __init__(self, address: str | None, num_workers: int, folder: Path) -> None:
        """Args: num_workers: Of the cluster of this machine; that of a running scheduler has its own."""
        self.num_workers = num_workers
        self.processor_seconds = 0.0
        self._address = address
        self._folder = folder
        self._cluster: Any = None
        self._client: Any = None

    def __enter__(self) -> DaskCluster:
        try:
            import dask
            import distributed
        except ImportError as error:
            raise UserError(f"{FIELD}.executor: dask was asked for, and the package distributed is not installed; "
                            "pip install 'derivative-factory[cluster]', or take executor: processes") from error
        for name in ("client", "comm", "core", "utils"):  # what they would print is said in one line, or mended
            logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
        # A worker may start processes of its own (a sandbox), and no answer of a scheduler is worth a hang.
        dask.config.set({"distributed.worker.daemon": False, "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
                         "distributed.scheduler.allowed-failures": MOST_DEATHS - 1})
        try:
            if self._address is None:
                # Workers are bounded by what the tasks hold (docs/corpora/scale.md), not killed at a share of memory.
                self._cluster = distributed.LocalCluster(
                    n_workers=self.num_workers, threads_per_worker=1, processes=True, dashboard_address=None,
                    memory_limit=0, local_directory=str(self._folder / "dask"))
            self._client = distributed.Client(self._cluster or self._address, timeout=CONNECT_S)
            self._client.wait_for_workers(1, timeout=FIRST_WORKER_S)
            self._check()
        except BaseException as error:
            self._close()
            if isinstance(error, (OSError, TimeoutError)) and not getattr(error, "errno", None):
                what = f"no scheduler, or none with a worker, answers at {self._address}" if self._address else \
                    f"the cluster of this machine does not start ({error})"
                raise UserError(f"{FIELD}.address: {what}; start `dask scheduler` and `dask worker`, or remove the "
                                "address for a cluster of this machine") from error
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._close()

    def ordered(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Results in the order of the tasks; see `Executor.ordered`."""
        given = iter(tasks)
        ahead: deque[tuple[Task, Any]] = deque()
        more = True
        try:
            while more or ahead:
                while more and len(ahead) < AHEAD * self.num_workers:
                    task = next(given, None)
                    if task is None:
                        more = False
                        break
                    ahead.append((task, self._submit(task)))
                if ahead:
                    yield self._result(*ahead.popleft())
        finally:
            if ahead:
                self._client.cancel([future for _, future in ahead], force=True)

    def _submit(self, task: Task) -> Any:
        key = f"{task.name} {uuid.uuid4().hex}"  # never one that another run has used: the result is what it wrote
        return self._client.submit(_do, code_digest(), task.function, task.arguments, key=key, pure=False)

    def _result(self, task: Task, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        try:
            outcome: Outcome = future.result()
        except KilledWorker as error:
            raise died(task, MOST_DEATHS, "give workers more memory, or run fewer on a machine,") from error
        except (CancelledError, CommClosedError, TimeoutError) as error:
            raise RetryableError(f"{FIELD}.address: the scheduler at {self._client.scheduler.address} was lost during "
                                 f"{task.name}; start it and run the same command again: what is done is kept"
                                 ) from error
        self.processor_seconds += outcome.processor_seconds
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    def _check(self) -> None:
        """Every worker runs the same code and shares the folder. Raises UserError."""
        probe = self._folder / f"probe-{uuid.uuid4().hex}"
        probe.mkdir(parents=True)
        said = str(uuid.uuid4())
        (probe / "question").write_text(said, encoding="ascii")
        try:
            answers = self._client.run(_answer, str(probe), said, on_error="return")
            self.num_workers = sum(self._client.nthreads().values())
            for worker, answer in sorted(answers.items()):
                if isinstance(answer, BaseException):
                    raise UserError(f"{FIELD}.address: the worker {worker} cannot run this project ({answer}); install "
                                    "the same version on all machines and start the workers again")
                name, digest, fault = answer
                if not fault and not (probe / name).exists():
                    fault = "what it writes there is not seen here"
                if fault:
                    raise UserError(f"{FIELD}.address: the worker {worker} does not share the folder {self._folder} "
                                    f"({fault}); OUT must lie where every worker sees it under the same path; "
                                    "give another OUT, or take executor: processes")
                if digest != code_digest():
                    raise UserError(_other_code(worker))
        finally:
            for path in probe.iterdir():
                path.unlink()
            probe.rmdir()

    def _close(self) -> None:
        for one in (self._client, self._cluster):
            if one is not None:
                one.close()
        self._client = self._cluster = None


def _other_code(worker: str) -> str:
    return (f"{FIELD}.address: the worker {worker} runs another version of this project, so that its results could be "
            "others; install the same version on all machines and start the workers again")


_ONE_AT_A_TIME = threading.Lock()
"""A worker with several threads does one task at a time: what the tasks keep in memory is not made for threads."""


def _do(digest: str, function: Any, arguments: tuple[Any, ...]) -> Outcome:
    with _ONE_AT_A_TIME:
        if code_digest() != digest:
            return Outcome(None, UserError(_other_code(os.uname().nodename)), 0.0)
        return do(function, arguments)


def _answer(probe: str, said: str) -> tuple[str, str, str]:
    """A name that this worker gave to a file in the folder, its code's digest, and what is wrong with the folder."""
    name = uuid.uuid4().hex
    fault = ""
    try:
        if (Path(probe) / "question").read_text(encoding="ascii") != said:
            fault = "it holds another file"
        else:
            (Path(probe) / name).touch()
    except OSError as error:
        fault = error.strerror or str(error)
    return name, code_digest(), fault
