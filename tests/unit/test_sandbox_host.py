"""Zygotes and runs: what is left when a layer is left out, and what a run leaves behind."""

from __future__ import annotations

import fcntl
import os
import random
import time
from pathlib import Path

import pytest

from verifiers.sandbox import layers
from verifiers.sandbox.host import Sandbox, SandboxUnavailable, Settings
from verifiers.sandbox.inside import codec
from verifiers.sandbox.judging import Judge
from verifiers.sandbox.problem import read
from verifiers.sandbox.run import Limits, RunEnded

DAEMON = """
import os, time

def f():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            os._exit(0)
    time.sleep(0.2)
    return True
"""


def job(program: str, name: str = "f") -> dict[str, object]:
    return {"kind": "calls", "program": program, "entry_points": [name]}


def result(sandbox: Sandbox, program: str, limits: Limits | None = None) -> object:
    with sandbox.open(job(program), limits or Limits()) as run:
        run.expect_loaded()
        answer = run.call("f", [])
        assert answer.letter == b"V", answer
        return codec.decode(answer.content)


def processes_of(scratch: str) -> int:
    found = 0
    for entry in os.listdir("/proc"):
        try:
            found += entry.isdecimal() and scratch.encode() in Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "without", [["seccomp"], ["seccomp", "namespaces"], ["seccomp", "namespaces", "user"]], ids="+".join
)
def test_daemons_are_killed_even_where_nothing_keeps_a_program_from_forking(without: list[str]) -> None:
    with Sandbox(Settings(without=frozenset(without), minimum=frozenset())) as sandbox:
        assert result(sandbox, DAEMON) is True
        sandbox.settle()
        assert processes_of(sandbox.scratch) == 2  # the launcher and the zygote
        assert result(sandbox, "def f():\n    return 1") == 1


def test_every_layer_that_is_left_out_is_told() -> None:
    found = {layer.name: layer for layer in layers(Settings(without=frozenset({"seccomp", "namespaces"})))}
    assert list(found) == ["limits", "seccomp", "landlock", "namespaces", "user"]
    assert found["limits"].in_force and not found["seccomp"].in_force and not found["namespaces"].in_force
    assert found["seccomp"].is_required and found["seccomp"].remedy and not found["namespaces"].is_required


def test_this_machine_has_the_minimum() -> None:
    missing = [layer for layer in layers() if layer.is_required and not layer.in_force]
    assert missing == []


def test_a_zygote_is_not_started_below_its_minimum() -> None:
    sandbox = Sandbox(Settings(without=frozenset({"seccomp"})))
    with pytest.raises(SandboxUnavailable, match="for want of seccomp"):
        sandbox.start()
    assert sandbox.process is None and not os.path.exists(sandbox.scratch)


def test_a_zygote_that_was_killed_is_replaced_and_the_program_judged_after_all() -> None:
    problem = read({"kind": "calls", "entry_point": "f", "calls": [{"args": [], "expected": 1}]})
    with Judge() as judge:
        for _ in range(3):
            assert judge.judge(problem, "def f():\n    return 1").is_correct
            judge.programs.settle()
            assert judge.programs.process is not None
            judge.programs.process.kill()
            while processes_of(judge.programs.scratch):  # the zygote dies with its launcher
                time.sleep(0.01)


def test_a_program_that_hangs_costs_its_time_and_no_more() -> None:
    with Sandbox() as sandbox:
        with sandbox.open(job("def f():\n    while True: pass"), Limits(time_s=0.1)) as run:
            run.expect_loaded()
            with pytest.raises(RunEnded, match="over_budget|exited"):
                run.call("f", [])
        assert sandbox.ending().status < 0  # killed, by the judge or by its own limit of processor time
        assert sandbox.process is not None
        launcher = sandbox.process.pid
        zygote = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()[0]
        ticks = Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()[13:15]  # of children that ended
        assert sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") < 3


def test_limits_are_those_that_were_asked_for() -> None:
    program = "import resource as r\ndef f():\n    return [r.getrlimit(k)[0] for k in (r.RLIMIT_CPU, r.RLIMIT_FSIZE)]"
    with Sandbox(Settings(scratch_mb=3)) as sandbox:
        assert result(sandbox, program, Limits(time_s=6.5)) == [7, 3 * 2**20]


def test_every_limit_is_soft_and_hard_and_the_child_dies_with_its_zygote() -> None:
    program = (
        "import ctypes, resource as r, threading\n"
        "def f():\n"
        "    names = ['AS', 'FSIZE', 'NOFILE', 'CORE', 'MSGQUEUE', 'MEMLOCK', 'NPROC']\n"
        "    number = ctypes.c_int()\n"
        "    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)\n"
        "    own = threading.main_thread().native_id == threading.get_native_id()\n"
        "    return {n: r.getrlimit(getattr(r, 'RLIMIT_' + n)) for n in names} | {'signal': number.value, 'own': own}\n"
    )
    settings = Settings(without=frozenset({"seccomp"}), minimum=frozenset(), scratch_mb=3, max_threads=8)
    with Sandbox(settings) as sandbox:
        found = result(sandbox, program)
        assert isinstance(found, dict)
        soft, hard = found.pop("AS")
        assert soft == hard < 2**40
        processes = found.pop("NPROC")
        assert processes == (11, 11) or not {"user", "namespaces"} & sandbox.in_force
        none = (0, 0)
        limits = {"FSIZE": (3 * 2**20,) * 2, "NOFILE": (64, 64), "CORE": none, "MSGQUEUE": none, "MEMLOCK": none}
        assert found == {**limits, "signal": 9, "own": True}


def test_each_run_begins_with_the_same_seed() -> None:
    program = "import random\ndef f():\n    return [random.random(), random.gauss(0, 1)]"
    seeded = random.Random(0)
    expected = [seeded.random(), seeded.gauss(0, 1)]
    with Sandbox() as sandbox:
        assert [result(sandbox, program) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("size", [1, 3_000, 20_000, 200_000])
def test_calls_that_were_sent_ahead_and_those_that_were_not_are_answered_in_order(size: int) -> None:
    calls = [{"args": ["x" * size, number], "expected": [size, number]} for number in range(12)]
    problem = read({"kind": "calls", "entry_point": "f", "calls": calls})
    with Judge() as judge:
        assert judge.judge(problem, "def f(text, number):\n    return [len(text), number]").passed == 12


def test_long_answers_to_calls_that_were_sent_ahead_do_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [{"args": [number, "x" * 2_500], "expected": str(number) * 300_000} for number in range(9)]
    problem = read({"kind": "calls", "entry_point": "f", "calls": calls})
    program = "def f(number, text):\n    return str(number) * 300_000"
    pipes = os.pipe2

    def small(flags: int) -> tuple[int, int]:
        made = pipes(flags)
        fcntl.fcntl(made[1], fcntl.F_SETPIPE_SZ, 4096)  # as the kernel makes them for a user who has many
        return made

    with Judge() as judge:
        assert judge.judge(problem, program).passed == 9
        monkeypatch.setattr(os, "pipe2", small)
        assert judge.judge(problem, program).passed == 9


def test_a_program_that_ends_has_the_calls_before_counted_and_none_that_was_sent_ahead() -> None:
    calls = [{"args": [number], "expected": number} for number in range(6)]
    problem = read({"kind": "calls", "entry_point": "f", "reward": "fraction", "calls": calls})
    program = "import os\ndef f(n):\n    return n if n < 4 else os._exit(0)"
    with Judge() as judge:
        found = judge.judge(problem, program)
        assert (found.passed, found.reason) == (4, "exited")


def test_threads_are_allowed_and_counted() -> None:
    program = (
        "import threading, time\ndef f():\n    n = 0\n    try:\n        while True:\n"
        "            threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n            n += 1\n"
        "    except RuntimeError:\n        return n"
    )
    with Sandbox(Settings(max_threads=8)) as sandbox:
        found = result(sandbox, program)
        if {"user", "namespaces"} & sandbox.in_force:
            assert isinstance(found, int) and 4 <= found <= 8
