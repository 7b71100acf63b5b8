"""The child: one process for one program, confined before it reads the first byte of it.

It reads messages on descriptor 3 and answers on 4: four bytes of length, one letter, four bytes of number, content.

    to it        P   what to run: {"kind", "program", ...} (`inside.codec`)
                 C   call: name, NUL, [arguments, keyword arguments]
                 T   the test script, where a task allows the shared process
                 V N the result of a call that a test script made        R   what it raised: name, NUL, message
    from it      L   loaded     V   value     R   raised: name, NUL, message     N   no plain data: 1 or 0, its truth
                 B   result is too large     O   out of memory, files or file size
                 M   the entry point is missing     C   a call (from a test script)     D   the script's report

Nothing that a candidate finds in here is of use to it: there are no expected values, no tests and no verdict. It may
answer for itself on descriptor 4, but only with a value, and the judge compares values outside.
"""

from __future__ import annotations

import atexit
import builtins
import errno
import gc
import io
import os
import random
import resource
import signal
import sys
import threading
import types
from dataclasses import dataclass
from typing import Any, NoReturn

from . import codec, filters, kernel, script

REQUESTS, REPLIES = 3, 4
EXHAUSTED = {errno.ENOSPC, errno.EFBIG, errno.EMFILE, errno.ENOMEM, errno.EDQUOT}
MODULE = "candidate"


@dataclass(frozen=True)
class Confinement:
    """What every child of a zygote takes upon itself. `max_processes` of 0: that limit cannot be counted here."""

    filter_template: bytes
    base_bytes: int
    max_files: int
    max_processes: int
    max_file_bytes: int
    parent: int
    first_other_fd: int


def live(job: dict[str, Any], descriptors: list[int], confinement: Confinement) -> NoReturn:
    """Confine this process for `job`, run what the judge sends, and end."""
    status = 1
    try:
        _confine(job, descriptors, confinement)
        status = _serve()
    finally:
        os._exit(status)


def _confine(job: dict[str, Any], descriptors: list[int], confinement: Confinement) -> None:
    os.setsid()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != confinement.parent:
        os._exit(1)
    for number, descriptor in zip((REQUESTS, REPLIES, 0, 1), descriptors, strict=False):
        os.dup2(descriptor, number)
    os.closerange(confinement.first_other_fd, 4096)
    limits = {
        resource.RLIMIT_AS: confinement.base_bytes + job["memory_mb"] * 2**20,
        resource.RLIMIT_FSIZE: confinement.max_file_bytes,
        resource.RLIMIT_NOFILE: confinement.max_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if confinement.max_processes:
        limits[resource.RLIMIT_NPROC] = confinement.max_processes
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_s"], job["cpu_s"] + 1))  # the second cannot be ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if confinement.filter_template:
        kernel.install_filter(filters.program(confinement.filter_template, os.getpid()))
    random.seed(0)
    gc.enable()


def _serve() -> int:
    kind, _, content = receive()
    if kind != b"P":
        return 1
    job = codec.decode(content)
    if job["kind"] == "stdio":
        return _run_main(job["program"])
    if job["kind"] == "script":
        return script.run(job, _Channel())
    namespace = _load(job["program"], job["entry_points"])
    if namespace is None:
        return 1
    send(b"L", 0)
    while True:
        kind, number, content = receive()
        if kind == b"T":
            return script.run_shared(codec.decode(content), namespace, _Channel())
        if kind != b"C":
            return 0
        _answer(namespace, number, content)


def _load(program: str, entry_points: list[str]) -> dict[str, Any] | None:
    """Run the program as a module; its names, or None where it failed, which is reported."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    try:
        exec(compile(program, "<candidate>", "exec"), module.__dict__)
    except BaseException as error:
        _report(0, error)
        return None
    for name in entry_points:
        if not callable(module.__dict__.get(name)):
            send(b"M", 0, name.encode())
            return None
    return module.__dict__


def _answer(namespace: dict[str, Any], number: int, content: bytes) -> None:
    name, _, arguments = content.partition(b"\0")
    try:
        positional, named = codec.decode(arguments)
        result = namespace[name.decode()](*positional, **named)
        try:
            send(b"V", number, codec.encode(result))
        except codec.NotPlainError:
            send(b"N", number, b"1" if result else b"0")
    except codec.TooLargeError:
        send(b"B", number)
    except BaseException as error:
        _report(number, error)


def _report(number: int, error: BaseException) -> None:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in EXHAUSTED):
        send(b"O", number)
        return
    try:
        message = str(error)[:1000]
    except BaseException:  # the exception's class is the program's
        message = ""
    send(b"R", number, f"{type(error).__name__}\0{message}".encode("utf-8", "replace"))


def _run_main(program: str) -> int:
    """Run the program as `__main__` with the case's standard streams; its exit status."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="replace")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.argv = ["main.py"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    status = 0
    try:
        exec(compile(program, "main.py", "exec"), module.__dict__)
    except SystemExit as error:
        status = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        _report(0, error)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except Exception as error:
        _report(0, error)
        status = 1
    return status & 0xFF


class _Channel:
    """What a test script needs of the judge."""

    def call(self, number: int, name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The candidate's result, by way of the judge. Raises what it raised, and NotPlainError and TooLargeError."""
        send(b"C", number, name.encode() + b"\0" + codec.encode([list(positional), named]))
        kind, _, content = receive()
        if kind == b"V":
            return codec.decode(content)
        if kind == b"N":
            return script.Opaque(content == b"1")
        type_name, _, message = content.partition(b"\0")
        kind_of_error = getattr(builtins, type_name.decode(), RuntimeError)
        if not (isinstance(kind_of_error, type) and issubclass(kind_of_error, Exception)):
            kind_of_error = RuntimeError
        try:
            error = kind_of_error(message.decode("utf-8", "replace"))
        except TypeError:  # UnicodeDecodeError and its like want more
            error = RuntimeError(message.decode("utf-8", "replace"))
        raise error

    def report(self, letter: bytes, report: Any) -> None:
        """The end of the script."""
        send(letter, 0, codec.encode(report))


def receive() -> tuple[bytes, int, bytes]:
    """The next message: letter, number, content. Ends the process when the judge has closed its end."""
    header = _read(9)
    size = int.from_bytes(header[:4], "big")
    return header[4:5], int.from_bytes(header[5:9], "big"), _read(size - 5)


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(REQUESTS, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def send(letter: bytes, number: int, content: bytes = b"") -> None:
    """Write one message."""
    data = memoryview((len(content) + 5).to_bytes(4, "big") + letter + number.to_bytes(4, "big") + content)
    while data:
        data = data[os.write(REPLIES, data) :]
