"""The code verifier on right, wrong and broken programs and tasks, by each kind of test; real sandboxes throughout."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from tests.code_tasks import Pair, humaneval_references, mbpp_references, published_completions
from verifiers.api import Outcome, Task, Verdict
from verifiers.code import MINIMUM_VARIABLE, CodeVerifier, judge_many, judge_with, settings_from_environment
from verifiers.pool import VerifierPool
from verifiers.sandbox.host import Settings
from verifiers.sandbox.judging import Judge

CALLS: dict[str, Any] = {
    "kind": "calls",
    "entry_point": "f",
    "time_s": 1,
    "calls": [
        {"args": [2], "expected": 4},
        {"args": [3], "kwargs": {}, "expected": 9},
        {"args": ["a"], "raises": "TypeError"},
    ],
}
STDIO: dict[str, Any] = {
    "kind": "stdio",
    "time_s": 1,
    "cases": [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "1 1\n", "stdout": "2\n"}],
}
SCRIPT: dict[str, Any] = {
    "kind": "script",
    "entry_point": "f",
    "time_s": 1,
    "test": "def check(candidate):\n    for n in range(3):\n        assert candidate(n) == n * n\n    assert f(2) == 4",
}
SQUARE = "def f(n):\n    return n * n\n"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def verdict(judge: Judge, metadata: dict[str, Any], program: str) -> Verdict:
    return judge_with(judge, Task("1", "", "", "code", metadata), f"```python\n{program}\n```")


def told(judge: Judge, metadata: dict[str, Any], program: str) -> tuple[str, float]:
    found = verdict(judge, metadata, program)
    return found.reason, found.score


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (SQUARE, "all_tests_passed"),
        ("def f(n):\n    return n + n if n == 2 else 0", "wrong_result"),
        ("def f(n):\n    return float(n * n)", "wrong_result"),
        ("def f(n):\n    return n / 0", "raised_ZeroDivisionError"),
        ("def g(n):\n    return 1", "no_entry_point"),
        ("def f(n:\n", "raised_SyntaxError"),
        ("", "no_program"),
        ("f = 3", "no_entry_point"),
        ("def f(n):\n    return lambda: n", "result_not_plain_data"),
        ("def f(n):\n    return n * n if isinstance(n, int) else 0", "raised_nothing"),
        ("class E(Exception): pass\ndef f(n):\n    raise E", "raised_other"),
        ("import os\nos._exit(0)", "exited"),
        ("import ctypes\ndef f(n):\n    ctypes.string_at(0)", "crashed"),
        ("def f(n):\n    return 'x' * 10**10", "over_budget"),
        ("def f(n):\n    return [0] * 10**6", "over_budget"),
        ("def f(n):\n    raise SystemExit(0)", "raised_SystemExit"),
        ("import numpy", "raised_ModuleNotFoundError"),
        ("def f(n):\n    return f(n)", "raised_RecursionError"),
        ("import sqlite3, ctypes, concurrent.futures.thread, email.mime.text\n" + SQUARE, "all_tests_passed"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(n):\n    return P(n * n).x",
            "all_tests_passed",
        ),
        (
            "import threading\ndef f(n):\n    r = []\n    t = threading.Thread(target=lambda: r.append(n * n))\n"
            "    t.start()\n"
            "    t.join()\n    return r[0] if r else n * n",
            "all_tests_passed",
        ),
        ("open('a', 'w').write('9')\ndef f(n):\n    return int(open('a').read()) * n * n // 9", "all_tests_passed"),
        ("if __name__ == '__main__':\n    raise ValueError\n" + SQUARE, "all_tests_passed"),
    ],
)
def test_calls_are_compared_outside(judge: Judge, program: str, reason: str) -> None:
    assert told(judge, CALLS, program) == (reason, float(reason == "all_tests_passed"))


def test_types_count_unless_the_task_says_otherwise(judge: Judge) -> None:
    one = {**CALLS, "calls": [{"args": [], "expected": 1}]}
    assert told(judge, one, "def f():\n    return True") == ("wrong_result", 0.0)
    assert told(judge, {**one, "types": "python"}, "def f():\n    return True") == ("all_tests_passed", 1.0)
    pair = {**CALLS, "calls": [{"args": [], "expected": {"$tuple": [1, 2]}}]}
    assert told(judge, pair, "def f():\n    return [1, 2]")[0] == "wrong_result"
    assert told(judge, {**pair, "types": "json"}, "def f():\n    return [1, 2]")[1] == 1.0
    third = {**CALLS, "calls": [{"args": [], "expected": 0.3}]}
    assert told(judge, third, "def f():\n    return 0.1 + 0.2")[0] == "wrong_result"
    assert told(judge, {**third, "tolerance": 1e-9}, "def f():\n    return 0.1 + 0.2")[1] == 1.0


def test_the_fraction_counts_hidden_tests_alone_and_is_never_full_marks_for_less(judge: Judge) -> None:
    calls = [{"args": [n], "expected": n * n, "visible": n < 2} for n in range(6)]
    task = {**CALLS, "calls": calls, "reward": "fraction"}
    assert told(judge, task, "def f(n):\n    return {0: 0, 1: 1}.get(n)") == ("wrong_result", 0.0)
    assert told(judge, task, "def f(n):\n    return n * n if n != 3 else 0") == ("wrong_result", 0.75)
    assert told(judge, task, "def f(n):\n    return n * n if n else 1") == (
        "wrong_result",
        0.0,
    )  # 4 of 4 hidden, yet not all
    assert told(judge, task, SQUARE) == ("all_tests_passed", 1.0)
    assert told(judge, {**task, "reward": "pass"}, "def f(n):\n    return n * n if n != 3 else 0")[1] == 0.0
    script = {**SCRIPT, "test": [f"assert f({n}) == {n * n}" for n in range(4)], "reward": "fraction"}
    assert told(judge, script, "def f(n):\n    return n * n if n else 1") == ("assertion_failed", 0.75)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print(sum(map(int, input().split())))", "all_tests_passed"),
        ("print(5)", "wrong_output"),
        ("import sys\na, b = sys.stdin.read().split()\nsys.stdout.write(str(int(a) + int(b)))", "all_tests_passed"),
        (
            "import os\na, b = map(int, os.read(0, 100).split())\nos.write(1, b'%d\\n' % (a + b))\nos._exit(0)",
            "all_tests_passed",
        ),
        ("if __name__ == '__main__':\n    print(sum(map(int, input().split())))\n    exit()", "all_tests_passed"),
        ("import atexit\natexit.register(lambda: print(sum(map(int, input().split()))))", "all_tests_passed"),
        ("raise KeyError(1)", "raised_KeyError"),
        ("raise SystemExit(2)", "exit_status_not_0"),
        ("x = (", "raised_SyntaxError"),
        ("print('x' * 10**8)", "over_budget"),
        ("input()\ninput()", "raised_EOFError"),
    ],
)
def test_output_is_compared_outside(judge: Judge, program: str, reason: str) -> None:
    assert told(judge, STDIO, program) == (reason, float(reason == "all_tests_passed"))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (SQUARE, "all_tests_passed"),
        ("def f(n):\n    return n", "assertion_failed"),
        ("def f(n): x", "raised_NameError"),
        ("def f(n):\n    return object()", "result_not_plain_data"),
        ("def g(): pass", "no_entry_point"),
        ("def f(n):\n    import os\n    os._exit(0)", "exited"),
        ("def check(f):\n    pass\ndef f(n): return 0", "assertion_failed"),
        ("def f(n):\n    return True if n == 1 else n * n", "all_tests_passed"),  # the script's own == decides
        ("def f(n):\n    raise AssertionError", "raised_AssertionError"),
    ],
)
def test_scripts_see_plain_data_alone(judge: Judge, program: str, reason: str) -> None:
    assert told(judge, SCRIPT, program) == (reason, float(reason == "all_tests_passed"))


def test_every_assertion_must_have_run(judge: Judge) -> None:
    for_all = {**SCRIPT, "test": "for item in f(3):\n    assert item == 1"}
    assert told(judge, for_all, "def f(n):\n    return []") == ("assertions_not_run", 0.0)
    assert told(judge, for_all, "def f(n):\n    return [1]") == ("all_tests_passed", 1.0)
    ended = {**SCRIPT, "test": ["assert f(1) == 1", "try:\n    f(2)\nfinally:\n    pass\nassert f(3) == 9"]}
    assert told(judge, ended, "def f(n):\n    if n == 2:\n        raise SystemExit(0)\n    return n * n")[1] == 0.0
    branch = {**SCRIPT, "test": "if f(1) == 1:\n    assert f(2) == 4\nelse:\n    assert f(2) == 5\nassert f(3) == 9"}
    assert told(judge, branch, SQUARE)[1] == 1.0
    handled = {
        **SCRIPT,
        "test": "try:\n    f('a')\nexcept TypeError as e:\n    assert 'by' in str(e)\nassert f(2) == 4",
    }
    assert told(judge, handled, SQUARE)[1] == 1.0


def test_a_match_object_is_true_and_equal_to_nothing(judge: Judge) -> None:
    task = {**SCRIPT, "test": ["assert f('ab')", "assert not f('b')", "assert f('ab') != 'ab'"]}
    assert told(judge, task, "import re\ndef f(text):\n    return re.match('a', text)") == ("all_tests_passed", 1.0)


def test_the_prompt_gives_a_script_its_helpers_and_a_continuation_its_head(judge: Judge) -> None:
    prompt = "def double(n):\n    return n + n\n\n\ndef f(n):\n    "
    task = {**SCRIPT, "prompt": prompt, "test": "assert f(3) == double(3) * 2"}
    assert judge_with(judge, Task("1", "", "", "code", task), "    return double(n) * 2\n\nprint(f(1))").score == 1.0
    assert told(judge, task, "def f(n):\n    return double(n) * 2")[1] == 1.0
    assert told(judge, task, "def double(n):\n    return 0\ndef f(n):\n    return 0")[0] == "assertion_failed"


def test_a_class_crosses_only_in_the_mode_that_the_task_allows(judge: Judge) -> None:
    task = {**SCRIPT, "entry_point": "Stack", "test": "s = Stack()\ns.push(1)\nassert s.pop() == 1"}
    program = (
        "class Stack:\n    def __init__(self): self.a = []\n    def push(self, x): self.a.append(x)\n"
        "    def pop(self): return self.a.pop()"
    )
    assert told(judge, task, program) == ("result_not_plain_data", 0.0)
    assert told(judge, {**task, "isolation": "shared"}, program) == ("all_tests_passed_in_shared_process", 1.0)
    assert told(judge, {**task, "isolation": "shared"}, program.replace("self.a.pop()", "2")) == (
        "assertion_failed",
        0.0,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test": "assert f(1"}, "SyntaxError"),
        ({"test": "undefined\nassert f(1)"}, "NameError"),
        ({"test": "f(1)"}, "nothing is asserted"),
        ({"test": "assert f(lambda: 1)"}, "function"),
        ({"setup": "import nothing_at_all"}, "ModuleNotFoundError"),
        ({"test": "import os\nos._exit(0)\nassert f(1)"}, "ended before"),
        ({"kind": "guess"}, "kind"),
    ],
)
def test_a_broken_test_gives_no_verdict_and_names_the_field(judge: Judge, change: dict[str, Any], words: str) -> None:
    found = verdict(judge, {**SCRIPT, **change}, SQUARE)
    assert (
        found.outcome is Outcome.NO_VERDICT and found.reason.startswith("gold_unreadable: ") and words in found.reason
    )


def test_what_a_completion_does_to_a_script_is_its_own_fault(judge: Judge) -> None:
    task = {**SCRIPT, "test": "n = f(1)\nassert sum(range(n)) >= 0\nassert f(n)"}
    assert told(judge, task, "def f(n):\n    return 10**12")[0] == "over_budget"
    assert told(judge, task, "def f(n):\n    return 'a'")[0] == "raised_TypeError"
    deep = {**SCRIPT, "test": "assert f([f(1)]) is not None"}
    nest = "def f(n):\n    v = []\n    for _ in range(62):\n        v = [v]\n    return v"
    assert verdict(judge, deep, nest).outcome is Outcome.INCORRECT


def test_the_same_verdict_each_time_also_with_sets_and_chance(judge: Judge) -> None:
    task = {**CALLS, "calls": [{"args": [], "expected": 0}]}
    program = "import random\ndef f():\n    return [random.random(), list({'a', 'b', 'c'}), hash('x')]"
    with judge.programs.open({"kind": "calls", "program": program, "entry_points": ["f"]}) as run:
        run.expect_loaded()
        first = run.call("f", []).content
    with Judge() as other, other.programs.open({"kind": "calls", "program": program, "entry_points": ["f"]}) as run:
        run.expect_loaded()
        assert run.call("f", []).content == first
    assert told(judge, task, program) == ("wrong_result", 0.0)


def test_a_missing_layer_refuses_and_says_what_to_do() -> None:
    with Judge(Settings(without=frozenset({"landlock"}))) as judge:
        found = judge_with(judge, Task("1", "", "", "code", CALLS), SQUARE)
    assert found.outcome is Outcome.NO_VERDICT
    assert found.reason.startswith(
        "sandbox_unavailable: sandbox: programs are not run, for want of landlock (run on Linux"
    )


def test_the_minimum_can_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MINIMUM_VARIABLE, "seccomp, landlock,namespaces")
    assert settings_from_environment().minimum == {"seccomp", "landlock", "namespaces"}
    monkeypatch.setenv(MINIMUM_VARIABLE, "")
    assert settings_from_environment().minimum == frozenset()
    monkeypatch.setenv(MINIMUM_VARIABLE, "selinux")
    with pytest.raises(UserError, match="selinux.*allowed: landlock, namespaces, seccomp, user"):
        settings_from_environment()


def test_many_are_judged_in_order() -> None:
    task = Task("1", "", "", "code", CALLS)
    pairs = [(task, SQUARE), (task, "def f(n):\n    return 0"), (task, "")] * 5
    assert [found.reason for found in judge_many(pairs, 2)] == ["all_tests_passed", "wrong_result", "no_program"] * 5


def sandbox_processes(mark: str = "inside.zygote") -> set[str]:
    """Processes with this text in their command line, which a sandbox's processes all share."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "cmdline").read_bytes():
                found.add(entry.name)
        except OSError:
            continue
    return found


def gone(pids: set[str]) -> bool:
    limit = time.monotonic() + 60
    while pids & sandbox_processes():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def test_a_pool_judges_with_it_and_a_killed_worker_leaves_nothing() -> None:
    task = Task("1", "", "", "code", {**CALLS, "time_s": 30})
    before = sandbox_processes()
    with VerifierPool(num_workers=1, deadline_s=60.0, verifier="code", memory_mb=256) as pool:
        hog = "def f(n):\n    x = bytearray(300 << 20)\n    return n * n"
        assert [found.score for found in pool.judge([(task, SQUARE), (task, hog)])] == [1.0, 1.0]  # limits of its own
        hung = pool.submit(task, "import time\ndef f(n):\n    time.sleep(600)")
        while not (started := sandbox_processes() - before):
            time.sleep(0.05)
        time.sleep(0.5)
        started = sandbox_processes() - before
    assert hung.done() and started and gone(started)


def test_a_judge_that_is_killed_leaves_neither_process_nor_folder() -> None:
    code = (
        "import sys, os; sys.path[:] = eval(sys.argv[1])\n"
        "from verifiers.sandbox.host import Sandbox\n"
        "sandbox = Sandbox()\n"
        "run = sandbox.open({'kind': 'calls', 'program': 'while True: pass', 'entry_points': ['f']})\n"
        "print(sandbox.scratch, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, repr(sys.path)], stdout=subprocess.PIPE, text=True, check=False)
    scratch = found.stdout.strip()
    assert found.returncode == -9 and scratch
    limit = time.monotonic() + 60
    while (os.path.exists(scratch) or sandbox_processes(scratch)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not os.path.exists(scratch) and sandbox_processes(scratch) == set()


def test_the_verifier_keeps_the_protocol_and_warms_up() -> None:
    verifier = CodeVerifier()
    verifier.warm_up()
    assert verifier.judge(Task("1", "", "", "code", CALLS), SQUARE).score == 1.0
    assert verifier.judge(Task("1", "", "", "code", {}), SQUARE).outcome is Outcome.NO_VERDICT


@pytest.mark.slow
def test_humaneval_references_pass_and_published_completions_get_their_published_verdicts(data_mirror: Path) -> None:
    references = humaneval_references(data_mirror)
    assert len(references) == 164
    assert [task.id for task, found in judged(references) if found.score < 1.0] == []
    completions, published = published_completions(data_mirror)
    verdicts = {task.id: found.score == 1.0 for task, found in judged(completions)}
    assert verdicts == published
    assert sum(verdicts.values()) == 101


@pytest.mark.slow
def test_mbpp_references_pass(data_mirror: Path) -> None:
    references = mbpp_references(data_mirror)
    assert len(references) == 427
    assert [(task.id, found.reason) for task, found in judged(references) if found.score < 1.0] == []


def judged(pairs: list[Pair]) -> list[tuple[Task, Verdict]]:
    return [(task, found) for (task, _), found in zip(pairs, judge_many(pairs), strict=True)]
