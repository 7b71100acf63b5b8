"""Synthetic code that does not run: its program is executed in our sandbox, and kept only if that ends well.

Published: Qwen2.5-Coder keeps synthetic code only if it is executable (arXiv 2409.12186 section 3.1.1), and checks the
code of its instruction samples by running it (section 4.2). The executor is the one that gives rewards later
(`verifiers/sandbox`): limits, seccomp, Landlock, a process of its own for every program.

Which program: of a document that is Python by its statement or its path, the whole text; of a worked example or a
conversation, and of a text of no known language, the last fenced block in Python (as the code verifier takes it), or
the whole answer where it has no fence and parses. What ends well, by `level`:

| level | asked |
|---|---|
| `import` | the module loads; `if __name__ == "__main__":` is not entered |
| `run` | it runs as a program, with nothing on standard input, and its exit status is 0 |
| `tests` | it loads, and the row's own tests (`tests`: a text or texts with assertions; `entry_point`) pass beside it |

Reasons: `no_code`, `not_python`, `no_tests`, `tests_unreadable` (they do not parse, nothing is asserted, or `check` is
defined and no `entry_point` named),
`over_budget` (time, memory, output, files; confirmed in a fresh process), `fails:NAME` with the built-in exception
(`fails:NameError`) or what else happened (`fails:exit_status_not_0`, `fails:assertion_failed`, `fails:crashed`).

A fault of the sandbox is never the document's: it is tried again in fresh sandboxes, and then ends the stage with a
message, to be started again; with `on_fault: drop` the document goes as `no_verdict:sandbox_fault`, counted like any
other. On a machine that lacks a layer of the sandbox's minimum nothing runs, and the stage ends by naming it.

What this does not do: programs see the standard library alone (what imports another package goes as
`fails:ModuleNotFoundError`); a program whose end depends on the clock or on chance may be judged otherwise another
time, and one close to its budget on another machine; tests run beside the program and can be fooled by it, which a
corpus is not written to do.
"""

from __future__ import annotations

import atexit
import os
import platform
import re
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from configs.errors import RetryableError, UserError
from configs.settings.common import Frozen
from corpora.document import Document
from corpora.filters.python_syntax import parse_fault
from corpora.filters.statistics import TextStatistics
from verifiers.api import OVER_BUDGET
from verifiers.code import settings_from_environment
from verifiers.sandbox.host import SandboxFault, SandboxUnavailable
from verifiers.sandbox.judging import ALL_PASSED, ALL_PASSED_SHARED, Judge
from verifiers.sandbox.problem import EXACT_OUTPUT, Case, GoldError, Problem
from verifiers.sandbox.program import PYTHON, extract, fenced_blocks
from verifiers.sandbox.run import Limits

REASONS = ("no_code", "not_python", "no_tests", "tests_unreadable", "over_budget", "fails:NAME",
           "no_verdict:sandbox_fault")

_MAY_HOLD_BLOCKS = ("", "markdown", "text")
"""Languages of texts that may hold code in fences; a row that states no language has none."""
_CHECK = re.compile(r"^def check\(", re.MULTILINE)
"""HumanEval's form: a function that takes what is tested, which `entry_point` has to name."""
_ATTEMPTS = 3
"""Times that a program is judged in fresh sandboxes before their fault is believed; each is two tries already."""
_ANY_OUTPUT = b"\x00 nothing that a program prints \x00"
_RAN = {"import": (ALL_PASSED,), "run": (ALL_PASSED, "wrong_output"), "tests": (ALL_PASSED, ALL_PASSED_SHARED)}
"""What the judge says of a program that ended well; what it printed is nobody's to compare."""


class Settings(Frozen):
    """What a program may take, and what counts as running."""

    level: Literal["import", "run", "tests"] = Field(
        default="run", description="import: it loads; run: it runs as a program; tests: the row's own tests pass."
    )
    seconds: PositiveFloat = Field(
        default=5.0, le=600.0, description="Processor seconds, rounded up to whole ones; twice that by the clock."
    )
    memory_mb: PositiveInt = Field(default=512, le=65_536, description="Megabytes above the bare interpreter's.")
    on_fault: Literal["stop", "drop"] = Field(
        default="stop",
        description="What a fault of the sandbox that does not go away does: stop ends the stage, to be started again; "
        "drop drops the document as no_verdict:sandbox_fault.",
    )


def version() -> str:
    """What the verdict depends on beside the document and the settings."""
    return "python " + platform.python_version()


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """Why the document's program does not run, or None.

    Raises:
        UserError: This machine lacks a layer of the sandbox's minimum.
        RetryableError: The sandbox failed, and goes on failing.
    """
    program, reason = program_of(statistics.document, statistics.language)
    if reason:
        return reason
    problem = _problem(statistics.document, settings)
    if isinstance(problem, str):
        return problem
    for attempt in range(_ATTEMPTS):
        try:
            result = _judge().judge(problem, program)
            break
        except GoldError:
            return "tests_unreadable"
        except SandboxUnavailable as error:
            raise UserError(f"filters.runs: {error}; or remove runs") from None
        except SandboxFault as error:
            _judge().close()
            if attempt == _ATTEMPTS - 1:
                if settings.on_fault == "drop":
                    return "no_verdict:sandbox_fault"
                raise RetryableError(
                    f"filters.runs: the sandbox failed {_ATTEMPTS} times at document {statistics.document.id!r} "
                    f"({error}); start again, or set on_fault: drop") from None
    if result.reason in _RAN[settings.level]:
        return None
    if result.reason == OVER_BUDGET:
        return OVER_BUDGET
    return f"fails:{result.reason.removeprefix('raised_')}"


def program_of(document: Document, language: str) -> tuple[str, str]:
    """The program of a document, and an empty reason; or nothing and the reason why it has none."""
    if document.text and language == "python":
        return document.text.removeprefix("\ufeff"), ""  # a file's first mark, which its interpreter passes over
    if document.text and language not in _MAY_HOLD_BLOCKS:
        return "", "not_python"
    text = document.text or document.completion or "\n".join(
        turn["content"] for turn in document.messages if turn["role"] == "assistant")
    blocks = fenced_blocks(text.rpartition("</think>")[2])
    if blocks:
        if all(named and named not in PYTHON for named, _ in blocks):
            return "", "not_python"
        program = extract(text)
        return (program, "") if program.strip() else ("", "no_code")
    return (text, "") if text.strip() and parse_fault(text) is None else ("", "no_code")


def _problem(document: Document, settings: Settings) -> Problem | str:
    limits = Limits(time_s=settings.seconds, memory_mb=settings.memory_mb)
    if settings.level == "import":
        return Problem("calls", (), "", limits, False)
    if settings.level == "run":
        return Problem("stdio", (), "", limits, False, cases=(Case(b"", _ANY_OUTPUT, False),), output=EXACT_OUTPUT)
    given = document.metadata.get("tests")
    tests = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    if not tests or not all(isinstance(one, str) and one.strip() for one in tests):
        return "no_tests"
    name = document.metadata.get("entry_point")
    entry_points = (name,) if isinstance(name, str) and name.isidentifier() else ()
    if any(parse_fault(one) for one in tests) or (not entry_points and any(_CHECK.search(one) for one in tests)):
        return "tests_unreadable"
    return Problem("script", entry_points, "", limits, False, tests=tests, is_shared=True)


_own: dict[int, Judge] = {}
"""The sandboxes of this process, by its id: a fork does not inherit them."""


def _judge() -> Judge:
    process = os.getpid()
    if process not in _own:
        _own.clear()
        _own[process] = judge = Judge(settings_from_environment())
        atexit.register(judge.close)
    return _own[process]
