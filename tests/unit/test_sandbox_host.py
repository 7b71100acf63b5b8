"""Zygotes and runs: what is left when a layer is left out, and what a run leaves behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from verifiers.sandbox import layers
from verifiers.sandbox.host import Sandbox, SandboxUnavailable, Settings
from verifiers.sandbox.inside import codec, filters
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
        ending = sandbox.ending()
        assert ending.status < 0 and ending.cpu_s < 3  # killed, by the judge or by its own limit of processor time


def test_limits_are_those_that_were_asked_for() -> None:
    program = "import resource as r\ndef f():\n    return [r.getrlimit(k)[0] for k in (r.RLIMIT_CPU, r.RLIMIT_FSIZE)]"
    with Sandbox(Settings(scratch_mb=3)) as sandbox:
        assert result(sandbox, program, Limits(time_s=6.5)) == [7, 3 * 2**20]


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


def test_the_filter_of_each_architecture_ends_in_refusal_and_names_the_pid() -> None:
    if not filters.supported():
        pytest.skip("no filter for this machine's architecture")
    made = filters.template()
    assert len(made) % 8 == 0 and made != filters.program(made, 77)
    assert len({number for numbers in filters.CALLS.values() if (number := numbers[0]) is not None}) == len(
        filters.CALLS
    )
    arm = [numbers[1] for numbers in filters.CALLS.values() if numbers[1] is not None]
    assert len(set(arm)) == len(arm)
