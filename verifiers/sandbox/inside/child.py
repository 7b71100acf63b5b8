"""The child: one process for one program, confined before it reads the first byte of it.

It reads messages on descriptor 3 and answers on 4: four bytes of length, one letter, four bytes of number, content.

    to it        P   what to run: {"kind", "program", ...} (`inside.codec`)
                 C   call: name, NUL, [arguments, keyword arguments]; more may wait in the pipe
                 T   the test script, where a task allows the shared process
                 V N the result of a call that a test script made        R   what it raised: name, NUL, message
    from it      L   loaded     V   value     R   raised: name, NUL, message     N   no plain data: 1 or 0, its truth
                 B   result is too large     O   out of memory, files or file size
                 M   the entry point is missing     C   a call (from a test script)     D   the script's report

Nothing that a candidate finds in here is of use to it: there are no expected values, no tests and no verdict. It may
answer for itself on descriptor 4, but only with a value, and the judge compares values outside. It may read what it
will be called with before it is called, as it will see it anyway.
"""

from __future__ import annotations

import atexit
import builtins
import errno
import gc
import io
import os
import sys
import threading
import types
from _signal import default_int_handler
from _signal import signal as set_handler  # that of `signal` would make an enum of the answer
from collections.abc import Sequence
from os import closerange, dup2, getpid, getppid, setsid
from resource import RLIMIT_AS, RLIMIT_CPU, RLIMIT_NPROC, setrlimit
from sys import byteorder
from typing import Any, NamedTuple, NoReturn

from . import codec, script
from .kernel import BARE_PRCTL

REQUESTS, REPLIES = 3, 4
NEXT_FD = {3: 4, 4: 0, 0: 1, 1: 2}
"""The order in which the judge's descriptors are taken: requests, replies, standard input, standard output."""
EXHAUSTED = {errno.ENOSPC, errno.EFBIG, errno.EMFILE, errno.ENOMEM, errno.EDQUOT}
MODULE = "candidate"
MAIN_THREAD = threading.main_thread()
_received = b""
"""What has been read of messages that are still to come."""
REHEARSALS = 20
REHEARSAL = "import math\n\n\ndef f(*items):\n    return [items, sorted(set(items[1]))]\n"


class Confinement(NamedTuple):
    """What every child of a zygote takes upon itself, made ready before the fork, beside what it inherits.

    Attributes:
        processes: The limit of processes and threads of this user, soft and hard; None where they cannot be counted.
        base_bytes: Address space that the bare interpreter maps.
        parent: Pid of the zygote.
        first_other_fd: Descriptors from this one on are closed.
        filter_code: The filter of system calls, empty where there is none.
        filter_pids: Where in it the child's pid goes.
        filter_call: The arguments that put it in force.
    """

    processes: tuple[int, int] | None
    base_bytes: int
    parent: int
    first_other_fd: int
    filter_code: bytearray
    filter_pids: list[int]
    filter_call: tuple[Any, ...]


def live(memory_mb: int, cpu_s: int, descriptors: Sequence[int], confinement: Confinement) -> NoReturn:
    """Confine this process, run what the judge sends, and end.

    What a child writes it pays for with a copy of the page, two or three microseconds each, and counting a reference is
    writing. Hence what is plain here: functions by their own names, no attributes, nothing that is made anew.
    """
    status = 1
    try:
        processes, base_bytes, parent, first_other_fd, filter_code, filter_pids, filter_call = confinement
        setsid()
        if BARE_PRCTL(1, 9, 0, 0, 0) < 0 or getppid() != parent:  # PR_SET_PDEATHSIG, SIGKILL
            raise OSError("the zygote is gone")
        number = 3
        for descriptor in descriptors:
            dup2(descriptor, number)
            number = NEXT_FD[number]
        closerange(first_other_fd, 4096)
        if processes is not None:
            setrlimit(RLIMIT_NPROC, processes)
        address_space = base_bytes + memory_mb * 2**20
        setrlimit(RLIMIT_AS, (address_space, address_space))
        setrlimit(RLIMIT_CPU, (cpu_s, cpu_s + 1))  # the second cannot be ignored
        set_handler(2, default_int_handler)  # SIGINT, which the zygote ignores
        pid = getpid()
        MAIN_THREAD._native_id = pid  # type: ignore[attr-defined]  # for want of its handler of forks (`warm`)
        if filter_code:
            own = pid.to_bytes(4, byteorder)
            for at in filter_pids:
                filter_code[at : at + 4] = own
            if BARE_PRCTL(*filter_call) < 0:
                raise OSError("the kernel refuses the filter of system calls")
        gc.enable()
        status = _serve()
    finally:
        os._exit(status)


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


def rehearse() -> None:
    """Serve a few harmless programs in the zygote, so that what a child runs is specialised and in caches already."""
    global REQUESTS, REPLIES
    usual = REQUESTS, REPLIES
    program = {"kind": "calls", "program": REHEARSAL, "entry_points": ["f"]}
    calls = [b"f\0" + codec.encode([[[1, 2.5, "a", True, None], (2,)], {}])] * 3
    messages = [(b"P", codec.encode(program)), *((b"C", call) for call in calls), (b"X", b"")]
    for _ in range(REHEARSALS):
        (REQUESTS, request), (reply, REPLIES) = os.pipe(), os.pipe()
        for number, (letter, content) in enumerate(messages):
            os.write(request, message(letter, number, content))
        _serve()
        for descriptor in (REQUESTS, request, reply, REPLIES):
            os.close(descriptor)
    REQUESTS, REPLIES = usual
    del sys.modules[MODULE]


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
    global _received
    while len(_received) < 9:
        _received += _read()
    end = 4 + int.from_bytes(_received[:4], "big")
    if len(_received) < end:
        parts, missing = [_received], end - len(_received)
        while missing > 0:
            parts.append(_read())
            missing -= len(parts[-1])
        _received = b"".join(parts)
    taken, _received = _received, _received[end:]
    return taken[4:5], int.from_bytes(taken[5:9], "big"), taken[9:end]


def _read() -> bytes:
    part = os.read(REQUESTS, 1 << 14)
    if not part:
        os._exit(0)
    return part


def send(letter: bytes, number: int, content: bytes = b"") -> None:
    """Write one message."""
    data = message(letter, number, content)
    while data:
        data = data[os.write(REPLIES, data) :]


def message(letter: bytes, number: int, content: bytes = b"") -> bytes:
    """One message as it goes over a pipe."""
    return (len(content) + 5).to_bytes(4, "big") + letter + number.to_bytes(4, "big") + content
