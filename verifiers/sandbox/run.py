"""One program in its child process, as the judge sees it: messages over two pipes, each wait with an end.

Nothing that a run sends can raise anything but `RunEnded`, whose reason becomes the verdict's.
"""

from __future__ import annotations

import builtins
import os
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fcntl import F_GETPIPE_SZ, fcntl
from types import TracebackType
from typing import Any, Protocol

from verifiers.sandbox.inside import codec

SPARE_S = 1.0
"""Seconds by the clock above twice the processor seconds: a loaded machine is not held against a program."""
_HEADER = 9
BUILT_IN_ERRORS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
)


class RunEnded(Exception):
    """A run came to its end before it had answered. `reason` is a verdict's reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What one run may take. Beyond it, the run is over budget.

    Attributes:
        time_s: Processor seconds, rounded up to whole ones; twice that and a second more by the clock.
        memory_mb: Megabytes of address space above what the bare interpreter maps.
        output_mb: Megabytes on standard output.
    """

    time_s: float = 2.0
    memory_mb: int = 512
    output_mb: int = 8

    @property
    def wall_s(self) -> float:
        """Seconds by the clock."""
        return 2 * self.time_s + SPARE_S


@dataclass(frozen=True)
class Answer:
    """One message from a run: its letter (see `inside.child`) and content. A value's content is in canonical form."""

    letter: bytes
    content: bytes


class Owner(Protocol):
    """What a run needs of its sandbox: to be ended, and to be told of."""

    def end_run(self) -> None:
        """Have the run killed."""


class Run:
    """One program in its child process. Everything that it can do wrong comes out as RunEnded."""

    def __init__(self, sandbox: Owner, inward: int, outward: int, limit: float) -> None:
        self.sandbox, self.limit = sandbox, limit
        self._inward, self._outward = inward, outward
        self._buffer = b""
        self._num_calls, self._num_ahead, self._is_open = 0, 0, True
        self._poll = select.poll()
        self._poll.register(outward, select.POLLIN)
        os.set_blocking(inward, False)
        os.set_blocking(outward, False)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the run. Does not wait for it: the next run does, or `Sandbox.ending`."""
        if self._is_open:
            self._is_open = False
            os.close(self._inward)
            os.close(self._outward)
            self.sandbox.end_run()

    def begin(self, job: bytes, calls: Sequence[bytes] = ()) -> None:
        """Send the job's message, and the first of the calls that will be made, as many as surely fit the pipe: were
        both sides to wait for room in a pipe, neither would go on.

        That saves a change of processes for each. The program could read what it will be called with before it is
        called; of what is expected it learns nothing. `call_encoded` must then be called for these, in this order.
        """
        parts, size, most = [_message(b"P", 0, job)], len(job), fcntl(self._inward, F_GETPIPE_SZ) // 2
        for number, call in enumerate(calls, 1):
            size += len(call) + _HEADER
            if size > most:
                break
            parts.append(_message(b"C", number, call))
            self._num_ahead = number
        self._write(b"".join(parts))

    def expect_loaded(self) -> None:
        """Wait until the program has run and its entry points are there. Raises RunEnded with what was amiss."""
        answer = self.receive(0)
        if answer.letter != b"L":
            raise RunEnded(reason_of(answer))

    def call(self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any] | None = None) -> Answer:
        """Call a function of the program with plain data. Raises RunEnded, and codec errors of our own arguments."""
        return self.call_encoded(name.encode() + b"\0" + codec.encode([list(arguments), dict(keywords or {})]))

    def call_encoded(self, content: bytes, rule: str = codec.EXACT) -> Answer:
        """As `call`, with name, NUL and the arguments' message."""
        self._num_calls += 1
        if self._num_calls > self._num_ahead:
            self.send(b"C", self._num_calls, content)
        answer = self.receive(self._num_calls)
        if answer.letter != b"V":
            return answer
        try:
            return Answer(b"V", codec.canonical(answer.content, rule))
        except codec.TooLargeError:
            return Answer(b"B", b"")
        except codec.MalformedError:
            raise RunEnded("broken_protocol") from None

    def send(self, letter: bytes, number: int, content: bytes = b"") -> None:
        """Send one message."""
        self._write(_message(letter, number, content))

    def _write(self, message: bytes) -> None:
        data = memoryview(message)
        while data:
            try:
                data = data[os.write(self._inward, data) :]
            except BlockingIOError:
                if not ready(self._inward, select.POLLOUT, self.limit - time.monotonic()):
                    raise RunEnded("over_budget") from None
            except OSError:  # it has closed its end, which its answer or its ending explains
                return

    def receive(self, number: int | None = None) -> Answer:
        """The next message, which must carry `number` unless that is None."""
        header = self._take(_HEADER)
        size = int.from_bytes(header[:4], "big") - 5
        is_other = number is not None and int.from_bytes(header[5:], "big") != number
        if is_other or not 0 <= size <= codec.MAX_BYTES + 4096:
            raise RunEnded("broken_protocol")
        return Answer(header[4:5], self._take(size))

    def wait(self) -> None:
        """Wait until the run has closed its end, for a program that answers on standard output alone."""
        try:
            while True:
                self.receive()
        except RunEnded as ended:
            if ended.reason != "exited":
                raise

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._poll.poll(max(0.0, self.limit - time.monotonic()) * 1000):
                raise RunEnded("over_budget")
            part = os.read(self._outward, 1 << 16)  # no more is ever in a pipe
            if not part:
                raise RunEnded("exited")
            self._buffer = self._buffer + part if self._buffer else part
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


def _message(letter: bytes, number: int, content: bytes) -> bytes:
    return (len(content) + 5).to_bytes(4, "big") + letter + number.to_bytes(4, "big") + content


def reason_of(answer: Answer) -> str:
    """A verdict's reason for an answer that is no value."""
    if answer.letter == b"R":
        name = answer.content.partition(b"\0")[0].decode("utf-8", "replace")
        return f"raised_{name}" if name in BUILT_IN_ERRORS else "raised_other"
    named = {b"N": "result_not_plain_data", b"B": "over_budget", b"O": "over_budget", b"M": "no_entry_point"}
    return named.get(answer.letter, "broken_protocol")


def ready(fd: int, event: int, timeout_s: float) -> bool:
    """Whether a descriptor is ready for the event within the time, or already."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))
