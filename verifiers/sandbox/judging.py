"""Runs a program against a problem's tests. The tests stay here or in a sandbox of their own; the program gets calls.

    with Judge() as judge:
        result = judge.judge(problem.read(task.metadata), program_text)     # Result(passed=3, total=3, reason=...)

What exceeds its budget is run once more in a fresh process before it counts. A fault of the sandbox is tried once more
with a fresh one; if it comes again, a harmless program is run: where that one works, the fault is the program's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from verifiers.api import OVER_BUDGET
from verifiers.sandbox.compare import same_output, same_result
from verifiers.sandbox.host import Sandbox, SandboxFault, SandboxUnavailable, Settings
from verifiers.sandbox.inside import codec, script
from verifiers.sandbox.problem import GoldError, Problem
from verifiers.sandbox.program import preamble
from verifiers.sandbox.run import BUILT_IN_ERRORS, Answer, Run, RunEnded, reason_of

ALL_PASSED = "all_tests_passed"
ALL_PASSED_SHARED = "all_tests_passed_in_shared_process"
"""The weaker mode's own reason: the script ran in the candidate's process, which a hostile candidate can forge."""
BROKE_SANDBOX = "broke_the_sandbox"
MAX_PROGRAM = 1_000_000
"""Characters of a program; beyond it nothing runs."""
_HARMLESS = "def f(x):\n    return x + 1\n"


@dataclass(frozen=True)
class Result:
    """How many of all tests passed, and what happened. `fraction` counts hidden tests alone where there are any."""

    passed: int
    total: int
    reason: str
    fraction: float

    @property
    def is_correct(self) -> bool:
        """Whether each and every test ran and passed."""
        return self.reason in (ALL_PASSED, ALL_PASSED_SHARED) and self.passed == self.total > 0


class Judge:
    """Two sandboxes: one for programs, and one for test scripts, started when the first script is run."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
        self.programs, self.scripts = Sandbox(settings), Sandbox(settings)

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both sandboxes."""
        self.programs.close()
        self.scripts.close()

    def judge(self, problem: Problem, program: str) -> Result:
        """Raises GoldError for tests that cannot be run, SandboxUnavailable, and SandboxFault."""
        if not program.strip():
            return _failed("no_program")
        if len(program) > MAX_PROGRAM:
            return _failed(OVER_BUDGET)
        kinds: dict[str, Callable[[Problem, str], Result]] = {
            "calls": self._calls, "stdio": self._stdio, "script": self._shared if problem.is_shared else self._script,
        }  # fmt: skip
        run = kinds[problem.kind]
        for _ in range(2):
            try:
                result = run(problem, program)
                return result if result.reason != OVER_BUDGET else run(problem, program)
            except SandboxUnavailable:
                raise
            except SandboxFault as error:
                fault = error
                self.close()
        if not self._works():
            raise fault
        return _failed(BROKE_SANDBOX)

    def _works(self) -> bool:
        try:
            with self.programs.open(_job(_HARMLESS, ("f",))) as run:
                run.expect_loaded()
                return run.call("f", [41]).content == codec.encode(42)
        except (SandboxFault, RunEnded):
            return False

    def _calls(self, problem: Problem, program: str) -> Result:
        visible = [call.is_visible for call in problem.calls]
        passed: list[bool] = []
        reason = ""
        job, messages = _job(program, problem.entry_points), [call.message for call in problem.calls]
        with self.programs.open(job, problem.limits, calls=messages) as run:
            try:
                run.expect_loaded()
                for call in problem.calls:
                    answer = run.call_encoded(call.message, problem.types)
                    wrong = self._wrong(answer, call.expected, call.raises, problem)
                    passed.append(not wrong)
                    reason = reason or wrong
                    if wrong and not problem.fraction:
                        break
            except RunEnded as ended:
                reason = self._explain(self.programs, run, ended)
        return _result(passed, visible, reason)

    def _wrong(self, answer: Answer, expected: bytes, raises: str, problem: Problem) -> str:
        """What is wrong with an answer; empty where nothing is."""
        if answer.letter != b"V":
            reason = reason_of(answer)
            return "" if raises and reason == f"raised_{raises}" else reason
        if raises:
            return "raised_nothing"
        return "" if same_result(expected, answer.content, problem.types, problem.tolerance) else "wrong_result"

    def _explain(self, sandbox: Sandbox, run: Run, ended: RunEnded) -> str:
        """The reason for a run that ended before its time."""
        run.close()
        if ended.reason != "exited":
            return ended.reason
        ending = sandbox.ending()
        if ending.over or ending.status in (-9, -24):  # SIGKILL (memory, or the second limit), SIGXCPU
            return OVER_BUDGET
        return "crashed" if ending.status < 0 else "exited"

    def _stdio(self, problem: Problem, program: str) -> Result:
        visible = [case.is_visible for case in problem.cases]
        passed: list[bool] = []
        reason = ""
        for case in problem.cases:
            wrong, found = self._run_main(problem, program, case.stdin)
            if not wrong and not same_output(case.stdout, found, problem.output):
                wrong = "wrong_output"
            passed.append(not wrong)
            reason = reason or wrong
            if wrong and not problem.fraction:
                break
        return _result(passed, visible, reason)

    def _run_main(self, problem: Problem, program: str, stdin: bytes) -> tuple[str, bytes]:
        """What went wrong with a run of a whole program, and what it wrote."""
        most = problem.limits.output_mb * 2**20
        reading, writing = os.memfd_create("stdin"), os.memfd_create("stdout")
        try:
            view = memoryview(stdin)
            while view:
                view = view[os.write(reading, view) :]
            os.lseek(reading, 0, os.SEEK_SET)
            job = {"kind": "stdio", "program": program}
            with self.programs.open(job, problem.limits, (reading, writing)) as run:
                try:
                    answer = run.receive()
                    wrong = reason_of(answer)
                    run.wait()
                except RunEnded as ended:
                    wrong = "" if ended.reason == "exited" else ended.reason
                run.close()
                ending = self.programs.ending()
            if ending.over or ending.status in (-9, -24) and wrong != "over_budget":
                wrong = OVER_BUDGET
            elif not wrong and ending.status:
                wrong = "crashed" if ending.status < 0 else "exit_status_not_0"
            found = os.pread(writing, most + 1, 0)
            return (OVER_BUDGET if len(found) > most else wrong), found
        finally:
            os.close(reading)
            os.close(writing)

    def _script(self, problem: Problem, program: str) -> Result:
        with self.programs.open(_job(program, problem.entry_points), problem.limits) as run:
            try:
                run.expect_loaded()
            except RunEnded as ended:
                return _failed(self._explain(self.programs, run, ended))
            job = _script_job(problem)
            with self.scripts.open(job, problem.limits) as test:
                relay = _Relay(problem, run, test)
                try:
                    report = relay.run()
                except RunEnded as ended:
                    if relay.in_candidate:
                        return _failed(self._explain(self.programs, run, ended))
                    reason = self._explain(self.scripts, test, ended)
                    if not relay.num_answers:
                        raise GoldError(f"test: the script ended before it called anything ({reason})") from None
                    return _failed(reason)
        return _reported(report, relay.wrong, ALL_PASSED)

    def _shared(self, problem: Problem, program: str) -> Result:
        with self.programs.open(_job(program, problem.entry_points), problem.limits) as run:
            try:
                run.expect_loaded()
                run.send(b"T", 0, codec.encode(_script_job(problem)))
                answer = run.receive()
                if answer.letter != b"D":
                    return _failed(reason_of(answer))
            except RunEnded as ended:
                return _failed(self._explain(self.programs, run, ended))
        return _reported(answer.content, "", ALL_PASSED_SHARED)


class _Relay:
    """Passes a script's calls on to the program, and the results back, both checked."""

    def __init__(self, problem: Problem, program: Run, test: Run) -> None:
        self.problem, self.program, self.test = problem, program, test
        self.num_answers = 0
        self.in_candidate = False
        self.wrong = ""  # why the last answer was no value

    def run(self) -> bytes:
        """The script's report. Raises RunEnded; `in_candidate` tells whose end it was."""
        while True:
            asked = self.test.receive()
            if asked.letter == b"D":
                return asked.content
            content = asked.content
            name, _, message = content.partition(b"\0")
            if asked.letter != b"C" or name.decode("utf-8", "replace") not in self.problem.entry_points:
                raise RunEnded("broken_protocol")
            try:
                codec.canonical(message, codec.AS_SENT)
            except (codec.MalformedError, codec.TooLargeError):
                raise RunEnded("broken_protocol") from None
            self.in_candidate = True
            answer = self.program.call_encoded(content, codec.AS_SENT)
            self.in_candidate = False
            self.num_answers += 1
            self.wrong = "" if answer.letter == b"V" else reason_of(answer)
            if answer.letter in (b"V", b"N"):
                self.test.send(answer.letter, 0, answer.content)
                continue
            kind, _, message = answer.content.partition(b"\0") if answer.letter == b"R" else (b"", b"", b"")
            known = kind.decode("utf-8", "replace") in BUILT_IN_ERRORS
            self.test.send(b"R", 0, (kind if known else b"RuntimeError") + b"\0" + message[:1000])


def _job(program: str, entry_points: tuple[str, ...]) -> dict[str, object]:
    return {"kind": "calls", "program": program, "entry_points": list(entry_points)}


def _script_job(problem: Problem) -> dict[str, object]:
    before = preamble(problem.prompt, problem.entry_point)
    return {
        "kind": "script", "tests": list(problem.tests), "preamble": f"{before}\n{problem.setup}\n",
        "entry_points": list(problem.entry_points), "keep_going": problem.fraction,
    }  # fmt: skip


def _reported(report: bytes, wrong: str, all_passed: str) -> Result:
    """The result of a script's own report; `wrong` is why the program's last answer was no value."""
    try:
        codec.canonical(report)
        required, passed, raised, num_calls, uncrossable = codec.decode(report)
        if not (type(required) is type(passed) is type(num_calls) is int and 0 <= passed <= required):
            raise ValueError
    except (codec.MalformedError, codec.TooLargeError, ValueError, TypeError):
        return _failed("broken_protocol")
    if all_passed == ALL_PASSED:
        if raised and num_calls == 0:
            raise GoldError(f"test: the script raised {raised} before it called anything")
        if uncrossable and num_calls == 1:
            raise GoldError(
                f"test: its arguments are no plain data ({uncrossable}); "
                "`isolation: shared` runs it in the program's own process"
            )
    if not required and not raised:
        raise GoldError("test: nothing is asserted")
    if not raised and passed == required:
        return Result(passed, required, all_passed, 1.0)
    if raised == "AssertionError" or not raised:
        reason = wrong or "assertion_failed"
    elif raised == script.NOT_RUN:
        reason = "assertions_not_run"
    else:
        reason = wrong or (f"raised_{raised}" if raised in BUILT_IN_ERRORS else "raised_other")
    return Result(passed, required, reason, passed / required if required else 0.0)


def _result(passed: list[bool], visible: list[bool], reason: str) -> Result:
    total = len(visible)
    passed = passed + [False] * (total - len(passed))
    if not reason and all(passed):
        return Result(total, total, ALL_PASSED, 1.0)
    counted = [got for got, is_visible in zip(passed, visible, strict=True) if not is_visible or all(visible)]
    return Result(sum(passed), total, reason or "broken_protocol", sum(counted) / max(len(counted), 1))


def _failed(reason: str) -> Result:
    return Result(0, 0, reason, 0.0)
