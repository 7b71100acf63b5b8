"""Hostile programs (`tests/hostile_suite.py`): none is rewarded, gets out or stays, and the next run is clean."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.hostile_suite import (
    CALLS,
    HELD,
    HONEST,
    PROGRAMS,
    SCRIPT,
    SLOW,
    SLOW_STDIO,
    STDIO,
    STDIO_PROGRAMS,
    Canaries,
    examine,
    laid_out,
    processes_of,
)
from verifiers.api import Task
from verifiers.code import judge_with
from verifiers.sandbox.host import Settings
from verifiers.sandbox.judging import Judge

FAST_PROGRAMS = [name for name in PROGRAMS if not name.startswith(SLOW)]
SLOW_PROGRAMS = [name for name in PROGRAMS if name.startswith(SLOW)]


@pytest.fixture(scope="module")
def canaries() -> Iterator[Canaries]:
    with laid_out() as canaries:
        yield canaries


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
    assert examine(judge, canaries, name, PROGRAMS[name], CALLS) == HELD


@pytest.mark.parametrize("name", FAST_PROGRAMS)
def test_a_hostile_function_earns_nothing_from_a_script(name: str, judge: Judge, canaries: Canaries) -> None:
    assert examine(judge, canaries, name, PROGRAMS[name], SCRIPT) == HELD


@pytest.mark.parametrize("name", [name for name in STDIO_PROGRAMS if name not in SLOW_STDIO])
def test_a_hostile_program_earns_nothing_from_its_output(name: str, judge: Judge, canaries: Canaries) -> None:
    assert examine(judge, canaries, name, STDIO_PROGRAMS[name], STDIO) == HELD


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_PROGRAMS)
def test_what_runs_into_its_limits_earns_nothing(name: str, judge: Judge, canaries: Canaries) -> None:
    assert examine(judge, canaries, name, PROGRAMS[name], CALLS) == HELD
    assert examine(judge, canaries, name, PROGRAMS[name], SCRIPT) == HELD


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW_STDIO))
def test_what_runs_into_its_limits_earns_nothing_from_its_output(name: str, judge: Judge, canaries: Canaries) -> None:
    assert examine(judge, canaries, name, STDIO_PROGRAMS[name], STDIO) == HELD


@pytest.mark.slow
@pytest.mark.parametrize("without", [["namespaces"], ["namespaces", "user"], ["user"]], ids="+".join)
def test_fewer_layers_hold_as_well(without: set[str], canaries: Canaries) -> None:
    with Judge(Settings(without=frozenset(without))) as judge:
        for name, path in PROGRAMS.items():
            if not name.startswith("hang_"):
                assert examine(judge, canaries, name, path, CALLS) == HELD
