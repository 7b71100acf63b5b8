"""Hostile programs (`tests/hostile`): none is rewarded, none gets out, none stays, and the next run is clean.

Each program is one file whose docstring says what it tries. Those that try to get out return the right answer if they
succeed, so that an escape shows as a reward; canaries outside are watched as well. Words in capitals are filled in.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from verifiers.api import Outcome, Task
from verifiers.code import judge_with
from verifiers.sandbox.host import Settings
from verifiers.sandbox.judging import Judge

FOLDER = Path(__file__).parents[1] / "hostile"
PROGRAMS = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
STDIO_PROGRAMS = {path.stem: path for path in sorted((FOLDER / "stdio").glob("*.py"))}
SLOW = ("bomb_", "hang_", "forge_flood", "forge_half", "forge_loop", "exit_stop_itself", "exit_thread")
"""What runs into its limits, and so takes seconds each."""
FAST_PROGRAMS = [name for name in PROGRAMS if not name.startswith(SLOW)]
SLOW_PROGRAMS = [name for name in PROGRAMS if name.startswith(SLOW)]
SLOW_STDIO = {"floods_output", "thread_lives_on", "exit_handler_hangs", "answer_then_hang"}


def right(n: int) -> int:
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
        text = path.read_text(encoding="utf-8")
        for word, value in self.words.items():
            text = text.replace(word, value)
        return f"```python\n{text}\n```"

    def assert_untouched(self) -> None:
        assert sorted(path.name for path in self.folder.iterdir()) == ["answers.json", "socket"]
        assert json.loads((self.folder / "answers.json").read_text()) == [right(n) for n in (5, 9, 12)]
        assert (self.folder.stat().st_mode & 0o777, self.folder.stat().st_mtime) == (0o755, 1_000_000_000)
        for listener in self.listeners:
            with pytest.raises(BlockingIOError):  # no connection waits, no datagram came
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()


@pytest.fixture(scope="module")
def canaries() -> Iterator[Canaries]:
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
    addresses = [("127.0.0.1", 0), ("127.0.0.1", 0), str(folder / "socket"), "\0" + abstract]
    for listener, address in zip(listeners, addresses, strict=True):
        listener.bind(address)
        if listener.type == socket.SOCK_STREAM:
            listener.listen()
        listener.setblocking(False)
    (folder / "socket").chmod(0o666)
    folder.chmod(0o755)
    os.utime(folder, (1_000_000_000, 1_000_000_000))
    os.environ["HOSTILE_SECRET"] = "the answer"
    words = {
        "CANARY_FOLDER": str(folder),
        "TCP_PORT": str(listeners[0].getsockname()[1]),
        "UDP_PORT": str(listeners[1].getsockname()[1]),
        "ABSTRACT_NAME": abstract,
        "JUDGE_PID": str(os.getpid()),
    }
    yield Canaries(folder, words, listeners)
    del os.environ["HOSTILE_SECRET"]
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


def assert_harmless(judge: Judge, canaries: Canaries, name: str, path: Path, metadata: dict[str, object]) -> None:
    verdict = judge_with(judge, Task(name, "", "", "code", metadata), canaries.prepare(path))
    assert verdict.outcome is Outcome.INCORRECT, (name, verdict)
    assert verdict.score == 0.0 and verdict.reason, (name, verdict)
    for sandbox in (judge.programs, judge.scripts):
        sandbox.settle()
        if sandbox.process is not None:
            assert len(processes_of(sandbox.scratch)) == 2, name  # the launcher and the zygote
    clean = judge_with(judge, Task(name, "", "", "code", CALLS), f"```python\n{HONEST_CLEAN}```")
    assert clean.outcome is Outcome.CORRECT, (name, clean)
    canaries.assert_untouched()


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge
        folders = [sandbox.scratch for sandbox in (judge.programs, judge.scripts)]
    for folder in filter(None, folders):
        assert processes_of(folder) == set() and not os.path.exists(folder)


def test_the_suite_is_as_large_as_it_says_it_is() -> None:
    assert len(PROGRAMS) >= 60
    assert all(path.read_text().split('"""')[1].endswith(".") for path in PROGRAMS.values())


def test_the_honest_program_is_rewarded_by_each_kind_of_test(judge: Judge) -> None:
    for metadata in (CALLS, SCRIPT):
        assert judge_with(judge, Task("", "", "", "code", metadata), f"```\n{HONEST}```").score == 1.0
    honest = "n = int(input())\nprint(n * n + 7 * n + 3)"
    assert judge_with(judge, Task("", "", "", "code", STDIO), honest).score == 1.0


@pytest.mark.parametrize("name", FAST_PROGRAMS)
def test_a_hostile_function_earns_nothing_from_calls(name: str, judge: Judge, canaries: Canaries) -> None:
    assert_harmless(judge, canaries, name, PROGRAMS[name], CALLS)


@pytest.mark.parametrize("name", FAST_PROGRAMS)
def test_a_hostile_function_earns_nothing_from_a_script(name: str, judge: Judge, canaries: Canaries) -> None:
    assert_harmless(judge, canaries, name, PROGRAMS[name], SCRIPT)


@pytest.mark.parametrize("name", [name for name in STDIO_PROGRAMS if name not in SLOW_STDIO])
def test_a_hostile_program_earns_nothing_from_its_output(name: str, judge: Judge, canaries: Canaries) -> None:
    assert_harmless(judge, canaries, name, STDIO_PROGRAMS[name], STDIO)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_PROGRAMS)
def test_what_runs_into_its_limits_earns_nothing(name: str, judge: Judge, canaries: Canaries) -> None:
    assert_harmless(judge, canaries, name, PROGRAMS[name], CALLS)
    assert_harmless(judge, canaries, name, PROGRAMS[name], SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW_STDIO))
def test_what_runs_into_its_limits_earns_nothing_from_its_output(name: str, judge: Judge, canaries: Canaries) -> None:
    assert_harmless(judge, canaries, name, STDIO_PROGRAMS[name], STDIO)


@pytest.mark.slow
@pytest.mark.parametrize("without", [["namespaces"], ["namespaces", "user"], ["user"]], ids="+".join)
def test_fewer_layers_hold_as_well(without: set[str], canaries: Canaries) -> None:
    with Judge(Settings(without=frozenset(without))) as judge:
        for name, path in PROGRAMS.items():
            if not name.startswith("hang_"):
                assert_harmless(judge, canaries, name, path, CALLS)
