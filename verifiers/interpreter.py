"""Runs a model's programs in the sandbox and says what they print, for tool-integrated reasoning.

    with Interpreters(num_workers=2, seconds=5.0, memory_mb=512) as interpreters:
        interpreters.submit("print(23 * 47)").result()           # Output(text='1081', failed='')

Each program runs alone in a fresh, confined process (`verifiers.sandbox`), as a notebook's cell: what it prints, and
the value of a last expression that is not None. A program that raises is answered with the last line of its traceback,
one that exceeds its budget with the name of the limit (after a second try, as a verdict would be), one that says
nothing with `Done`: as Qwen2.5-Math's evaluation does. The names of a program are gone when it ends.

What this does not do: nothing is installed, so that programs have the standard library alone (no sympy or numpy); a
program that prints the time of day says something else each time.
"""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from verifiers.api import OVER_BUDGET
from verifiers.code import settings_from_environment
from verifiers.sandbox.host import Sandbox, SandboxFault, SandboxUnavailable
from verifiers.sandbox.judging import BROKE_SANDBOX, MAX_PROGRAM
from verifiers.sandbox.run import Limits, RunEnded, reason_of

SILENT = "Done"
"""Said of a program that prints nothing, as in Qwen2.5-Math's evaluation."""
MAX_READ = 1 << 16
"""Bytes that are read of what a program prints, from either end."""
_KILLED_BY_TIME = -24
_KILLED = -9
_BROKE_PROTOCOL = "SystemError: the program broke its protocol"
_PLACE = re.compile(r" \(main\.py, line \d+\)$")
_HARMLESS = "print(6 * 7)\n"
_CELL = """
def _run_cell(source):
    import ast
    tree = ast.parse(source, "main.py")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "main.py", "exec"), globals())
    value = eval(compile(ast.Expression(last.value), "main.py", "eval"), globals()) if last else None
    if value is not None:
        print(value)
_run_cell({source!r})
"""


@dataclass(frozen=True)
class Output:
    """What a program said.

    Attributes:
        text: Standard output, or why there is none; without blanks around it.
        failed: A verdict's kind of reason (`raised_NameError`, `over_budget`, ...); empty where the program ended well.
    """

    text: str
    failed: str = ""


class Interpreters:
    """Runs programs in `num_workers` sandboxes at once. Use it as a context manager or call `close`.

    Args:
        num_workers: Sandboxes.
        seconds: Processor seconds of one program; twice that and a second more by the clock.
        memory_mb: Megabytes above the bare interpreter's.
    """

    def __init__(self, num_workers: int = 2, seconds: float = 5.0, memory_mb: int = 512) -> None:
        self.limits = Limits(time_s=seconds, memory_mb=memory_mb)
        settings = settings_from_environment()
        self._sandboxes = [Sandbox(settings) for _ in range(num_workers)]
        self._idle: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        for sandbox in self._sandboxes:
            self._idle.put(sandbox)
        self._threads = ThreadPoolExecutor(num_workers, "interpreter")

    def __enter__(self) -> Interpreters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all sandboxes; what still runs ends at its limit. Safe to call twice."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for sandbox in self._sandboxes:
            sandbox.close()

    def start(self) -> None:
        """Start all sandboxes. Raises SandboxUnavailable where a layer of the minimum is not in force."""
        for sandbox in self._sandboxes:
            sandbox.start()

    def submit(self, program: str) -> Future[Output]:
        """Run a program; the future gives its output, or raises SandboxFault where that is not the program's doing."""
        return self._threads.submit(self._run, program)

    def _run(self, program: str) -> Output:
        sandbox = self._idle.get()
        try:
            return _run_in(sandbox, program, self.limits)
        finally:
            self._idle.put(sandbox)


def _run_in(sandbox: Sandbox, program: str, limits: Limits) -> Output:
    if len(program) > MAX_PROGRAM:
        return Output(f"MemoryError: a program of more than {MAX_PROGRAM} characters", OVER_BUDGET)
    fault: SandboxFault | None = None
    for _ in range(2):
        try:
            found = _once(sandbox, program, limits)
            return found if found.failed != OVER_BUDGET else _once(sandbox, program, limits)
        except SandboxUnavailable:
            raise
        except SandboxFault as error:
            fault = error
            sandbox.close()
    assert fault is not None
    try:
        works = _once(sandbox, _HARMLESS, limits) == Output("42")
    except SandboxFault:
        works = False
    if not works:
        raise fault
    return Output("SystemError: the program broke its sandbox", BROKE_SANDBOX)


def _once(sandbox: Sandbox, program: str, limits: Limits) -> Output:
    """One run. Raises SandboxFault."""
    reading, writing = os.memfd_create("stdin"), os.memfd_create("stdout")
    error: Output | None = None
    late = False
    try:
        job = {"kind": "stdio", "program": _CELL.format(source=program)}
        with sandbox.open(job, limits, (reading, writing)) as run:
            try:
                answer = run.receive()
                error = _error(answer.letter, answer.content, reason_of(answer))
                run.wait()
            except RunEnded as ended:
                late = ended.reason == OVER_BUDGET
                if ended.reason not in ("exited", OVER_BUDGET):
                    return Output(_BROKE_PROTOCOL, ended.reason)
            run.close()
            ending = sandbox.ending()
        if late or ending.status == _KILLED_BY_TIME:
            return Output(f"TimeoutError: more than {limits.time_s:g} seconds", OVER_BUDGET)
        if ending.over:
            return Output("OSError: too many or too large files", OVER_BUDGET)
        if ending.status == _KILLED:
            return Output("MemoryError: more than its time or memory", OVER_BUDGET)
        if error is not None:
            return error
        if ending.status < 0:
            return Output(f"SystemError: ended by signal {-ending.status}", "crashed")
        text = _read(writing)
        if ending.status:
            return Output(text or f"SystemExit: {ending.status}", "exit_status_not_0")
        return Output(text or SILENT)
    finally:
        os.close(reading)
        os.close(writing)


def _error(letter: bytes, content: bytes, reason: str) -> Output:
    """The last line of a traceback."""
    if letter != b"R":
        named = {OVER_BUDGET: "MemoryError: more memory or files than allowed"}
        return Output(named.get(reason, _BROKE_PROTOCOL), reason)
    name, _, message = content.decode("utf-8", "replace").partition("\0")
    line = next((part for part in reversed(message.strip().split("\n")) if part.strip()), "")
    line = _PLACE.sub("", line)  # a traceback says it two lines above
    return Output(f"{name}: {line}" if line else name, reason)


def _read(descriptor: int) -> str:
    """What was printed; of very much, its two ends."""
    size = os.fstat(descriptor).st_size
    if size <= 2 * MAX_READ:
        content = os.pread(descriptor, 2 * MAX_READ, 0)
    else:
        content = os.pread(descriptor, MAX_READ, 0) + os.pread(descriptor, MAX_READ, size - MAX_READ)
    return content.decode("utf-8", "replace").strip()


Submit = Callable[[str], Future[Output]]
"""What a rollout needs of the interpreters."""
