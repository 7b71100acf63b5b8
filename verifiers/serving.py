"""One worker of `verifiers.pool`: its process, the thread that serves it, its clock and its memory.

A problem's clock starts when the problem before it is answered, stands still while the worker imports a verifier, and
does not count the time in which the judge stood ready and got no processor: a verdict must not depend on how many
workers share a machine. `STARVED_FACTOR` bounds that patience.

What exceeds a limit is judged once more in a fresh worker, alone; so is what made a verifier raise. The second
judgement stands, whatever the worker had judged before the first.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from verifiers.api import OVER_BUDGET, Outcome, Verdict, incorrect, no_verdict
from verifiers.processes import kill_below, resident_mb, starved_s, state

LOAD_TIMEOUT_S = 120.0
"""Time for a worker to start, import a verifier, and take in a chunk."""
MAX_OWN_DEADLINE_S = 3600.0
"""The longest deadline that a verifier may ask for itself (`deadline_s`), since it waits for a server."""
END_TIMEOUT_S = 3.0
"""Time for a keeper to end by itself after all below it was killed."""
STARVED_FACTOR = 10.0
"""Wall-clock time of one judgement, as a multiple of its deadline, however busy the machine."""
MAX_FAILED_STARTS = 3
"""Workers in a row that die before they have judged anything, after which the pool gives up."""
NEAR_LIMIT = 0.8
"""A worker that died with this share of its memory in use died of it."""
SAMPLE_S = 0.05
"""Time between looks at the memory of a worker that has not answered yet. (Its resource usage after death would also
count the memory of this process, from before the worker's interpreter was loaded.)"""

# The hash seed orders sets alike in every worker; one thread each leaves the machine to the other workers.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from verifiers.worker import main; main(*map(int, sys.argv[2:]))"
)


@dataclass
class Job:
    """One problem on its way to a verdict."""

    request: str
    name: str
    """The task's id, for people."""
    verifier: str
    """Its name, for people."""
    deadline_s: float
    future: Future[Verdict] = field(default_factory=Future)


class Owner(Protocol):
    """What a worker needs of its pool."""

    memory_mb: int

    @property
    def closed(self) -> bool:
        """Whether no more verdicts are wanted."""
        ...

    def take(self) -> list[Job]:
        """The next chunk; empty when the pool closes."""
        ...

    def settle(self, job: Job, verdict: Verdict) -> None:
        """Hand a verdict over."""
        ...


class Fault(Exception):
    """A worker came to its end, or must."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail)
        self.kind = kind  # over (a limit was exceeded) | died (by itself) | stopped (the pool closes)
        self.detail = detail


class Worker:
    """One process and the thread that serves it."""

    def __init__(self, pool: Owner) -> None:
        self.pool = pool
        self.process: subprocess.Popen[bytes] | None = None  # the keeper
        self.judge = 0  # its child that judges; 0 before it has told its id
        self.lock = threading.Lock()  # over starting and killing
        self.buffer = b""
        self.rest_mb = self.peak_mb = 0.0  # resident memory after loading, and the most seen since
        self.failed_starts = 0
        self.own_deadlines: dict[str, float] = {}  # of verifiers that wait for others, and say for how long
        self.doing = ""  # for people
        self.since = 0.0

    def run(self) -> None:
        """Serve chunks until the pool closes. Any error of ours ends up in the futures, not in a silent thread."""
        while jobs := self.pool.take():
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            try:
                while jobs:
                    jobs = self._serve(jobs)
            except Fault:
                self._settle_closed(jobs)
            except BaseException as error:
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
            self.doing = ""
        self.stop()

    def awaited(self) -> str:
        """What it does now, for people; empty where it has nothing to do."""
        doing, judge = self.doing, self.judge
        if not doing:
            return ""
        about = f"process {judge}, {state(judge)}" if judge else "process starting"
        return f"{doing} for {time.monotonic() - self.since:.0f} s ({about})"

    def kill(self) -> None:
        """Kill the process with all that is below it. From any thread: the pipes stay open for our own."""
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                kill_below(self.process.pid)
                with suppress(ProcessLookupError, PermissionError):
                    self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Kill the process, wait for it, and close its pipes. Only from the thread that serves it."""
        self.kill()
        with self.lock:
            process, self.process, self.judge = self.process, None, 0
        self.buffer = b""
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _serve(self, jobs: list[Job]) -> list[Job]:
        """Judge a chunk. After a fault, settle the job at fault by a second attempt and return those left over."""
        done = 0
        raised: list[Job] = []
        try:
            self._send(jobs)
            while done < len(jobs):
                reply = self._receive(jobs[done])
                if "over" in reply:
                    raise Fault("over", reply["over"])
                if "error" in reply:
                    raised.append(jobs[done])  # the worker is whole: the rest of the chunk goes on
                else:
                    self.pool.settle(jobs[done], _verdict(reply))
                done += 1
        except Fault as fault:
            if fault.kind == "stopped" or self.pool.closed:
                self._settle_closed([*raised, *jobs[done:]])
                return []
            self._end(fault)
            raised.append(jobs[done])
            done += 1
        for job in raised:
            self.pool.settle(job, self._second_attempt(job))
        return jobs[done:]

    def _second_attempt(self, job: Job) -> Verdict:
        """Once more, in a worker that has judged nothing yet."""
        self.stop()
        try:
            self._send([job])
            reply = self._receive(job)
            if "over" in reply:
                raise Fault("over", reply["over"])
        except Fault as fault:
            if fault.kind == "stopped" or self.pool.closed:
                return no_verdict("pool_closed")
            if self._end(fault) == "over":
                return incorrect(OVER_BUDGET)
            return no_verdict(f"verifier_fault: {fault.detail}")
        return _verdict(reply)

    def _settle_closed(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if not job.future.done():
                self.pool.settle(job, no_verdict("pool_closed"))

    def _end(self, fault: Fault) -> str:
        """Kill the worker after a fault, so that what follows gets a fresh one; the fault's kind, memory considered."""
        self.stop()
        if fault.kind == "died" and self.peak_mb - self.rest_mb >= NEAR_LIMIT * self.pool.memory_mb:
            return "over"
        return fault.kind

    def _send(self, jobs: list[Job]) -> None:
        if self.process is None:
            self._note("starting a worker")
            self._start()
        data = memoryview(f"[{','.join(job.request for job in jobs)}]\n".encode())
        process, limit = self.process, time.monotonic() + LOAD_TIMEOUT_S
        if process is None or process.stdin is None:
            raise Fault("stopped")
        try:
            fd = process.stdin.fileno()
            while data:
                if not _ready(fd, select.POLLOUT, limit - time.monotonic()):
                    raise Fault("died", "the worker takes nothing in")
                data = data[os.write(fd, data) :]
        except (OSError, ValueError) as error:
            raise Fault("died", f"the worker ended: {error}") from error

    def _receive(self, job: Job) -> dict[str, Any]:
        """The reply to the next problem. Raises Fault when the deadline passes or the worker ends."""
        clock = _Clock(self._deadline_s(job), self.judge) if self.failed_starts == 0 else _Clock(LOAD_TIMEOUT_S)
        self._note(f"task {job.name!r}")
        while True:
            reply = self._line(clock)
            if "judge" in reply:
                self.judge = int(reply["judge"])
            elif "loading" in reply:
                self._note(f"import of verifier {reply['loading']!r}")
                clock = _Clock(LOAD_TIMEOUT_S)
            elif "loaded" in reply:
                self.failed_starts = 0
                self.rest_mb = self.peak_mb = resident_mb(self.judge)
                self._note(f"task {job.name!r}")
                self.own_deadlines[reply["loaded"]] = min(reply["deadline_s"], MAX_OWN_DEADLINE_S)
                clock = _Clock(self._deadline_s(job), self.judge)
            else:
                self.failed_starts = 0
                return reply

    def _deadline_s(self, job: Job) -> float:
        """The pool's deadline, or the verifier's own if that is longer: its clock must run out first."""
        return max(job.deadline_s, self.own_deadlines.get(job.verifier, 0.0))

    def _line(self, clock: _Clock) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            process = self.process
            if process is None or process.stdout is None:
                raise Fault("stopped")
            try:
                fd = process.stdout.fileno()
                while not _ready(fd, select.POLLIN, min(SAMPLE_S, clock.left_s())):
                    self.peak_mb = max(self.peak_mb, resident_mb(self.judge))
                    if clock.is_over():
                        if clock.judge:
                            raise Fault("over", "deadline")
                        raise Fault("died", f"no worker ready after {clock.limit_s:.0f} s ({self.doing})")
                data = os.read(fd, 1 << 16)
            except (OSError, ValueError) as error:
                raise Fault("stopped" if self.pool.closed else "died", f"the worker's pipe broke: {error}") from error
            if not data:
                raise Fault("stopped" if self.pool.closed else "died", "the worker ended by itself")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _note(self, doing: str) -> None:
        self.doing, self.since = doing, time.monotonic()

    def _start(self) -> None:
        self.failed_starts += 1
        self.rest_mb = self.peak_mb = 0.0
        if self.failed_starts > MAX_FAILED_STARTS:
            raise RuntimeError(
                f"{MAX_FAILED_STARTS} verifier workers in a row ended before their first verdict; their stderr says why"
            )
        arguments = [json.dumps(sys.path), str(os.getpid()), str(self.pool.memory_mb)]
        with self.lock:
            if self.pool.closed:
                raise Fault("stopped")
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,
            )
            assert self.process.stdin is not None
            os.set_blocking(self.process.stdin.fileno(), False)


class _Clock:
    """Time since it was made, without what the judge (if one is given) spent waiting for a processor."""

    def __init__(self, limit_s: float, judge: int = 0) -> None:
        self.limit_s, self.judge = limit_s, judge
        self.started = time.monotonic()
        self.starved_s: float | None = None  # read when first needed: most verdicts come long before

    def left_s(self) -> float:
        """Until the wall clock reaches the limit; a moment when only the processor is awaited."""
        left = self.started + self.limit_s - time.monotonic()
        return left if left > 0 else SAMPLE_S / 5

    def is_over(self) -> bool:
        """Whether the limit is passed."""
        wall = time.monotonic() - self.started
        if not self.judge:
            return wall >= self.limit_s
        if self.starved_s is None:
            self.starved_s = max(0.0, starved_s(self.judge))
        waited = starved_s(self.judge) - self.starved_s
        return wall - waited >= self.limit_s or wall >= STARVED_FACTOR * self.limit_s


def _ready(fd: int, event: int, timeout_s: float) -> bool:
    """Whether the pipe is ready within the time; a pipe that is ready counts even when the time is over."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0, timeout_s) * 1000))


def _verdict(reply: dict[str, Any]) -> Verdict:
    fault = reply.get("error") or reply.get("unloadable")
    if fault is not None:
        return no_verdict(f"verifier_fault: {fault}")
    outcome, score, extracted, reason, seconds = reply["verdict"]
    return Verdict(Outcome(outcome), score, extracted, reason, seconds)
