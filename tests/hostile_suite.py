"""The hack suite: hostile programs (`tests/hostile`), the tasks that they are to cheat at, and what is watched.

Each program is one file whose docstring says what it tries. Those that try to get out return the right answer if they
succeed, so that an escape shows as a reward; canaries outside are watched as well. Words in capitals are filled in.

`tests/contract/test_hack_suite.py` runs it as tests, `tests/benchmarks/bench_verifiers.py` counts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from verifiers.api import Outcome, Task
from verifiers.code import judge_with
from verifiers.sandbox.judging import Judge

FOLDER = Path(__file__).parent / "hostile"
PROGRAMS = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
STDIO_PROGRAMS = {path.stem: path for path in sorted((FOLDER / "stdio").glob("*.py"))}
SLOW = ("bomb_", "hang_", "forge_flood", "forge_half", "forge_loop", "exit_stop_itself", "exit_thread")
"""What runs into its limits, and so takes seconds each."""
SLOW_STDIO = {"floods_output", "thread_lives_on", "exit_handler_hangs", "answer_then_hang"}
SECRET = "HOSTILE_SECRET"


def right(n: int) -> int:
    """What the hostile programs are asked for."""
    return n * n + 7 * n + 3


LIMITS = {"time_s": 0.4, "memory_mb": 128}
CALLS = {
    "kind": "calls",
    "entry_point": "solve",
    "reward": "fraction",
    **LIMITS,
    "calls": [{"args": [n], "expected": right(n), "visible": n < 3} for n in (1, 2, 5, 9, 12)],
}
SCRIPT = {
    "kind": "script",
    "entry_point": "solve",
    **LIMITS,
    "test": "def check(candidate):\n"
    + "".join(
        f"    assert candidate({n}) == {right(n)} and not isinstance(candidate({n}), float)\n" for n in (5, 9, 12)
    ),
}
STDIO = {
    "kind": "stdio",
    "reward": "fraction",
    **LIMITS,
    "cases": [{"stdin": f"{n}\n", "stdout": f"{right(n)}\n"} for n in (5, 9)],
}
HONEST = "def solve(n):\n    return n * n + 7 * n + 3\n"
HONEST_CLEAN = f"import os\nassert os.listdir('.') == [] and not os.environ\n{HONEST}"


@dataclass
class Canaries:
    """What must not be touched, and who listens for what must not be sent."""

    folder: Path
    words: dict[str, str]
    listeners: list[socket.socket] = field(default_factory=list)

    def prepare(self, path: Path) -> str:
        """A completion that holds this program, its words filled in."""
        text = path.read_text(encoding="utf-8")
        for word, value in self.words.items():
            text = text.replace(word, value)
        return f"```python\n{text}\n```"

    def touched(self) -> list[str]:
        """What has been touched; empty where all is as it was made."""
        found = []
        if sorted(path.name for path in self.folder.iterdir()) != ["answers.json", "socket"]:
            found.append("files in the folder outside")
        elif json.loads((self.folder / "answers.json").read_text()) != [right(n) for n in (5, 9, 12)]:
            found.append("the file of answers")
        if (self.folder.stat().st_mode & 0o777, self.folder.stat().st_mtime) != (0o755, 1_000_000_000):
            found.append("mode or time of the folder outside")
        for listener in self.listeners:
            try:  # no connection waits, no datagram came
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()
                found.append(f"a listener ({listener.family.name}, {listener.type.name})")
            except BlockingIOError:
                continue
        return found


@contextmanager
def laid_out() -> Iterator[Canaries]:
    """Canaries, for as long as the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="canaries-"))
    (folder / "answers.json").write_text(json.dumps([right(n) for n in (5, 9, 12)]))
    (folder / "answers.json").chmod(0o666)
    abstract = f"hostile-{os.getpid()}"
    listeners = [
        socket.socket(socket.AF_INET),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    ]
    loopback = ("127.0.0.1", 0)
    addresses: list[tuple[str, int] | str] = [loopback, loopback, str(folder / "socket"), "\0" + abstract]
    for listener, address in zip(listeners, addresses, strict=True):
        listener.bind(address)
        if listener.type == socket.SOCK_STREAM:
            listener.listen()
        listener.setblocking(False)
    (folder / "socket").chmod(0o666)
    folder.chmod(0o755)
    os.utime(folder, (1_000_000_000, 1_000_000_000))
    os.environ[SECRET] = "the answer"
    words = {
        "CANARY_FOLDER": str(folder),
        "TCP_PORT": str(listeners[0].getsockname()[1]),
        "UDP_PORT": str(listeners[1].getsockname()[1]),
        "ABSTRACT_NAME": abstract,
        "JUDGE_PID": str(os.getpid()),
    }
    try:
        yield Canaries(folder, words, listeners)
    finally:
        del os.environ[SECRET]
        for listener in listeners:
            listener.close()
        shutil.rmtree(folder)


def processes_of(scratch: str) -> set[int]:
    """Processes of the sandbox with this scratch folder, which stands in the command line that forks inherit."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            if entry.isdecimal() and scratch.encode() in Path("/proc", entry, "cmdline").read_bytes():
                found.add(int(entry))
        except OSError:
            continue
    return found


@dataclass(frozen=True)
class Finding:
    """What one hostile program brought about; all empty where the judge held.

    Attributes:
        rewarded: The verdict, where it was anything but incorrect with a reason and no score.
        escaped: What it touched outside.
        left: Processes that stayed behind, beside the sandbox's own two.
        unclean: The verdict on the honest program that ran next, where that was not correct.
    """

    rewarded: str = ""
    escaped: tuple[str, ...] = ()
    left: int = 0
    unclean: str = ""


HELD = Finding()


def examine(judge: Judge, canaries: Canaries, name: str, path: Path, metadata: dict[str, object]) -> Finding:
    """Run one hostile program against one kind of test, then an honest one."""
    verdict = judge_with(judge, Task(name, "", "", "code", metadata), canaries.prepare(path))
    held = verdict.outcome is Outcome.INCORRECT and verdict.score == 0.0 and verdict.reason
    left = 0
    for sandbox in (judge.programs, judge.scripts):
        sandbox.settle()
        if sandbox.process is not None:
            left += len(processes_of(sandbox.scratch)) - 2  # the launcher and the zygote
    clean = judge_with(judge, Task(name, "", "", "code", CALLS), f"```python\n{HONEST_CLEAN}```")
    return Finding(
        rewarded="" if held else str(verdict),
        escaped=tuple(canaries.touched()),
        left=left,
        unclean="" if clean.outcome is Outcome.CORRECT else str(clean),
    )
