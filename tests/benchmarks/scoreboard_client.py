"""A grader of math answers in a process of its own, with a limit for each answer: what hangs or dies is counted.

`judge_all` asks one grader (`scoreboard_graders.py`) for its verdict on each pair, in order. A grader that has not
answered within its limit of processor time is killed with all that it started, the pair counts as `hung`, and a fresh
process goes on with the next pair; one that dies counts as `died`. What this does not do: it makes no table.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

RUNNER = Path(__file__).with_name("scoreboard_graders.py")
ANSWER_LIMIT_S = 20.0
"""Processor time for one verdict; the graders' own limits add up to at most 15 s by the clock."""
CLOCK_FACTOR = 4.0
"""How many times its limit a verdict may take by the clock, on a crowded machine or asleep."""
START_LIMIT_S = 120.0
"""Time for imports and a warm-up."""
MOST_RESTARTS = 40
"""Processes after which a grader is given up: then the rest of its pairs count as not judged."""


@dataclass(frozen=True)
class Said:
    """A grader's word on one pair.

    Attributes:
        said: True or False; None where it says that it cannot judge, or did not come back.
        trouble: `hung`, `died`, the name of an exception, or nothing.
        processor_s: Processor time of this verdict.
        wall_s: The same by the clock.
        ran: Whether a program in the answer ran.
    """

    said: bool | None
    trouble: str = ""
    processor_s: float = 0.0
    wall_s: float = 0.0
    ran: bool = False


class NoGraderError(RuntimeError):
    """A grader that does not start; the text says why."""


class GraderProcess:
    """One process of a grader, confined to an empty folder of its own if asked to be."""

    def __init__(self, python: str, name: str, confined: bool) -> None:
        """Start it and wait until it is warm. Raises NoGraderError."""
        self.folder = tempfile.TemporaryDirectory(prefix="scoreboard-") if confined else None
        command = [python, str(RUNNER), name, *([self.folder.name] if self.folder else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
        self.rest = b""
        self.hung = False
        if not self._line(START_LIMIT_S):
            self._end()
            assert self.process.stderr is not None
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            self.close()
            raise NoGraderError(f"{name}: {said[-1] if said else 'did not start, and said nothing'}")

    def ask(self, row: dict[str, Any], limit_s: float = ANSWER_LIMIT_S) -> Said | None:
        """Its verdict; None where it did not come back, after which only `close` may be called."""
        assert self.process.stdin is not None
        end = time.monotonic() + CLOCK_FACTOR * limit_s
        try:
            self._write(json.dumps(row).encode() + b"\n")
            line = self._line(limit_s / 4)
            before = self.processor_s() if line is None else 0.0  # looked up late: it costs more than most verdicts
            while line is None and time.monotonic() < end and self.processor_s() - before < limit_s:
                line = self._line(limit_s / 20)
        except BrokenPipeError:
            line = b""
        if line:
            found = json.loads(line)
            return Said(found["said"], found["raised"], found["processor_s"], found["wall_s"], found["ran"])
        self.hung = line is None
        return None

    def processor_s(self) -> float:
        """Processor time of the processes of its session, those that have ended left out."""
        ticks = 0
        for entry in os.listdir("/proc"):
            try:
                if entry.isdecimal():
                    fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                    ticks += (int(fields[11]) + int(fields[12])) if int(fields[3]) == self.process.pid else 0
            except OSError:
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it, with everything that it started, and remove its folder."""
        self._end()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self.folder is not None:
            self.folder.cleanup()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> GraderProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:  # fmt: skip
        self.close()

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        while data:
            data = data[self.process.stdin.write(data):]

    def _line(self, limit_s: float) -> bytes | None:
        """The next line of its output; None where none came in time, empty where its output has ended."""
        assert self.process.stdout is not None
        end = time.monotonic() + limit_s
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                return b""
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line


def judge_all(python: str, name: str, rows: Sequence[dict[str, Any]], confined: bool = False,
              limit_s: float = ANSWER_LIMIT_S) -> list[Said]:  # fmt: skip
    """A grader's word on each pair, in order. Raises NoGraderError where it cannot be started at all."""
    found: list[Said] = []
    restarts = 0
    process = GraderProcess(python, name, confined)
    try:
        for row in rows:
            if restarts > MOST_RESTARTS:
                found.append(Said(None, "given_up"))
                continue
            started = time.monotonic()
            said = process.ask(row, limit_s)
            if said is None:
                found.append(Said(None, "hung" if process.hung else "died", wall_s=time.monotonic() - started))
                process.close()
                restarts += 1
                process = GraderProcess(python, name, confined)
            else:
                found.append(said)
    finally:
        process.close()
    return found
