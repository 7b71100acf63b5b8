"""Text and programs that nobody thought of, judged one after another: no crash, no hang, a verdict, memory flat.

Each function judges a number of cases, or goes on for some seconds, and raises Broken with the case that broke the
contract: a missing verdict or score, a verdict that a completion must not bring about, a case over its time. A case is
made from `seed` and its number alone, so that `first` brings back the one that a failure names.

    fuzz_answers(seed, seconds=60)      random answers, and golds with pieces cut, doubled and broken, as final answers
    fuzz_mutated_golds(seed, 1_000)     golds proved to be worth something else (tests.property.mutated_answers)
    fuzz_documents(seed, seconds=60)    JSON documents and tables, random ones and golds with pieces cut and broken
    fuzz_programs(seed, seconds=60)     honest and hostile programs with pieces cut, doubled and broken, in the sandbox

`tests/property/test_verifiers_fuzz.py` runs them with a fresh seed in CI, `tests/benchmarks/bench_verifiers.py` in
bulk.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.hostile_suite import FOLDER, processes_of
from tests.property.mutated_answers import mutation, respelled
from verifiers.answers.equivalence import compare
from verifiers.api import Outcome, Task, Verdict
from verifiers.code import judge_with
from verifiers.json_schema import JsonSchemaVerifier
from verifiers.math import MathVerifier
from verifiers.sandbox.judging import Judge
from verifiers.table import TableVerifier

ANSWER_LIMIT_S = 2.0
"""Processor time that judging one answer may take."""
HANG_S = 2 * ANSWER_LIMIT_S
"""Processor time after which an answer is given up, and its case told."""
WARM_UP = 0.1
"""Share of the cases, or of the time, that is judged before memory is first looked at: caches fill."""

ANSWER_PIECES = [
    "\\frac", "{", "}", "(", ")", "[", "]", "|", "^", "_", "!", "%", "+", "-", "*", "/", "=", "<", ",", ";", " ", "$",
    "1", "23", "0.5", "x", "y", "e", "i", "\\pi", "\\sqrt", "\\sin", "\\log", "\\pm", "\\cup", "\\infty", "\\{", "\\}",
    "\\text{ cm}", "or", "and", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\le", "\\boxed{", "answer:",
    "####", " cm", " and ", "\\begin{cases}", "\\end{cases}", "\\cdots", "\\approx", "twenty", "max ", ":", "degrees",
    "\\mathbb{R}", "\\setminus", "\\pmod{4}", "\\overline{3}", "A) ", "</think>", "<think>", "\n", "\u00b2", "f(x)",
    "for all ",
]  # fmt: skip
GOLDS = [
    "7", "-\\frac{3}{4}", "3\\sqrt{2}", "0.458", "(1,2)", "\\{1,2\\}", "(-\\infty,2)\\cup(3,5)", "x+2y=3", "C",
    "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "n=4k+2", "3:45", "a cat", "5 cm", "f(x)=2x", "a<b<c", "x=k\\pi",
]  # fmt: skip

DOCUMENT_PIECES = [
    "{", "}", "[", "]", '"', ",", ":", "null", "true", "1", "-1", "0.10", "1e9", "1e999", "NaN", "\\u0041", "\\ud800",
    "\\", "\n", "\r", "\t", " ", "|", "|---|", "---", "```", "```json\n", "```csv\n", "\n```\n", "~~~", "%", "**",
    "1,000", "</think>", "\u00e9", "e\u0301", "\u2028", '"n": 1', "a,b\n", "\x00", "\ufeff",
]  # fmt: skip
_NESTED = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": ["object", "array", "number"],
            "properties": {"n": {"multipleOf": 0.1}, "next": {"$ref": "#/$defs/node"}, "s": {"pattern": "^[a-z]*$"}},
            "required": ["n"],
            "unevaluatedProperties": {"type": "string"},
            "items": {"anyOf": [{"const": 1}, {"$ref": "#/$defs/node"}]},
            "uniqueItems": True,
        }
    },
}
DOCUMENT_TASKS = [
    Task("j1", "", '{"n": 0.3, "next": {"n": 1}, "s": "ab"}', "json_schema", {"schema": _NESTED, "order": "free"}),
    Task("j2", "", "", "json_schema", {"schema": _NESTED}),
    Task("j3", "", "[[1, 2], [true, null], 1e3]", "json_schema", {"order": {"/*": "free"}}),
    Task("t1", "", "city,people,share\nOslo,717710,50%\nBergen,291940,0.25", "table", {"rows": "free"}),
    Task("t2", "", "| a | b |\n|---|---|\n| 1 | x |\n| 2 | |", "table", {"columns": "fixed", "text": "folded"}),
]

PROGRAMS = [
    "def solve(n):\n    total = 0\n    for k in range(n):\n        total += k * k\n    return total\n",
    "def solve(n):\n    if n < 2:\n        return n\n    return solve(n - 1) + solve(n - 2)\n",
    "import re\n\n\ndef solve(n):\n    return [int(d) for d in re.findall(r'[0-9]', str(n))]\n",
    "class Solver:\n    n = 3\n\n\ndef solve(n):\n    return {Solver().n: (n, {n})}\n",
    "from functools import lru_cache\n\n\n@lru_cache\ndef solve(n):\n    return 1 if n < 1 else n * solve(n - 1)\n",
    "import sys\n\n\ndef solve(n):\n    return n\n\n\nfor line in sys.stdin:\n    print(solve(int(line)))\n",
]
PROGRAM_PIECES = [
    "0", "-1", "10**9", "n", "()", "[", ")", "None", "yield ", "return ", "while True: ", "lambda: ", "*", "**", "\n",
    "    ", "import os\n", "del n\n", "raise ", "try:\n", "except:\n", "\x00", "\ud800", "\u00e9", "'", '"""', "#",
    "f'{n}'", "@", ":=",
]  # fmt: skip
_LIMITS = {"time_s": 0.2, "memory_mb": 128}
_CALLS = {"kind": "calls", "entry_point": "solve", **_LIMITS, "calls": [{"args": [5], "expected": "never"}]}
_SCRIPT = {"kind": "script", "entry_point": "solve", **_LIMITS, "test": ["assert solve(5) == 'never'"]}
_STDIO = {"kind": "stdio", **_LIMITS, "cases": [{"stdin": "5\n", "stdout": "never, by any program\n"}]}
PROGRAM_TASKS = [Task(str(kind["kind"]), "", "", "code", kind) for kind in (*[_CALLS] * 8, _SCRIPT, _STDIO)]
"""Tests that no program passes; calls, the quickest, most often."""


class Broken(AssertionError):
    """A case that broke the contract. The text names it and how to bring it back."""


@dataclass(frozen=True)
class Fuzzed:
    """What a series of cases showed.

    Attributes:
        count: Cases judged.
        accepted: Those that were judged correct.
        slowest_s: Processor time of this process for the slowest one, in seconds.
        grown_mb: Resident memory at the end less that after the warm-up, of this process and its sandboxes.
        peak_mb: Resident memory at the end.
        left: Processes that sandboxes left behind.
    """

    count: int
    accepted: int
    slowest_s: float
    grown_mb: float
    peak_mb: float
    left: int = 0


def fuzz_answers(seed: int, count: int | None = None, seconds: float | None = None, first: int = 0) -> Fuzzed:
    """Judge answers against gold answers that can all be read. Raises Broken."""
    verifier = MathVerifier()
    verifier.warm_up()

    def case(number: int) -> bool:
        rng = _rng("answer", seed, number)
        gold = rng.choice(GOLDS)
        completion = _completion(gold, rng)
        with _explained(f"answers, FUZZ_SEED={seed} FUZZ_CASE={number}: gold {gold!r}, completion {completion!r}"):
            verdict = verifier.judge(Task("t", rng.choice(("", "Which $k$?")), gold), completion)
            return _checked(verdict)

    return _series(case, count, seconds, first, lambda: [os.getpid()])


def fuzz_mutated_golds(seed: int, count: int | None = None, seconds: float | None = None, first: int = 0) -> Fuzzed:
    """Compare golds with proved mutations of them, none of which may be accepted, and now and then with another
    spelling, which must be. Raises Broken."""

    def case(number: int) -> bool:
        rng = _rng("gold", seed, number)
        pair = mutation(rng)
        where = f"mutated golds, FUZZ_SEED={seed} FUZZ_CASE={number}"
        with _explained(f"{where}: {pair}"):
            if compare(pair.gold, pair.answer).equal:
                raise Broken("accepted, though it is worth something else")
        if rng.random() < 0.1:
            same = respelled(rng)
            with _explained(f"{where}: {same}"):
                if not compare(*same).equal:
                    raise Broken("not accepted, though it is the same")
        return False

    return _series(case, count, seconds, first, lambda: [os.getpid()])


def fuzz_documents(seed: int, count: int | None = None, seconds: float | None = None, first: int = 0) -> Fuzzed:
    """Judge broken documents and tables against golds that can all be read. Raises Broken."""
    verifiers = {"json_schema": JsonSchemaVerifier(), "table": TableVerifier()}
    verifiers["json_schema"].judge(DOCUMENT_TASKS[0], "")  # imports

    def case(number: int) -> bool:
        rng = _rng("document", seed, number)
        task, kind = rng.choice(DOCUMENT_TASKS), rng.random()
        if kind < 0.4:
            text = json.dumps(_random_value(rng, 4), ensure_ascii=rng.random() < 0.5)
        elif kind < 0.8:
            text = mutated_text(task.answer or '{"n": 1, "x": ""}', DOCUMENT_PIECES, rng, rng.randint(1, 6))
        else:
            text = "".join(rng.choices(DOCUMENT_PIECES, k=rng.choice((3, 12, 40)))) * rng.choice((1, 1, 50))
        completion = f"```{rng.choice(('json', 'csv', 'markdown', ''))}\n{text}\n```" if rng.random() < 0.4 else text
        with _explained(f"documents, FUZZ_SEED={seed} FUZZ_CASE={number}: {task.id}, completion {completion!r}"):
            return _checked(verifiers[task.verifier].judge(task, completion))

    return _series(case, count, seconds, first, lambda: [os.getpid()])


def fuzz_programs(seed: int, count: int | None = None, seconds: float | None = None, first: int = 0) -> Fuzzed:
    """Judge programs, none of which can pass, in a sandbox with its default layers. Raises Broken."""
    harmful = (path for path in sorted(FOLDER.glob("*.py")) if not path.name.startswith(("hang_", "bomb_")))
    seeds = PROGRAMS + [path.read_text(encoding="utf-8") for path in harmful]
    with Judge() as judge:

        def case(number: int) -> bool:
            rng = _rng("program", seed, number)
            program = mutated_program(rng, seeds)
            task = rng.choice(PROGRAM_TASKS)
            where = f"programs, FUZZ_SEED={seed} FUZZ_CASE={number}: {task.id}: {program!r}"
            with _explained(where, clocked=False):  # the sandbox holds the clock, and waiting is no work of ours
                accepted = _checked(judge_with(judge, task, f"```python\n{program}\n```"))
                if accepted:
                    raise Broken("rewarded, though no program passes this test")
                return accepted

        def processes() -> list[int]:
            sandboxes = [sandbox for sandbox in (judge.programs, judge.scripts) if sandbox.process is not None]
            for sandbox in sandboxes:
                sandbox.settle()
            return [os.getpid(), *(pid for sandbox in sandboxes for pid in processes_of(sandbox.scratch))]

        for task in PROGRAM_TASKS[-3:]:  # both sandboxes stand before memory is looked at
            _checked(judge_with(judge, task, PROGRAMS[0]))
        fuzzed = _series(case, count, seconds, first, processes)
        folders = [sandbox.scratch for sandbox in (judge.programs, judge.scripts) if sandbox.scratch]
    left = sum(len(processes_of(folder)) for folder in folders)
    return Fuzzed(fuzzed.count, fuzzed.accepted, fuzzed.slowest_s, fuzzed.grown_mb, fuzzed.peak_mb, left)


def _random_value(rng: random.Random, depth: int) -> Any:
    """A JSON value of the names and kinds that the schemas of `DOCUMENT_TASKS` speak of."""
    kind = rng.randrange(9 if depth else 6)
    if kind < 6:
        text = rng.choice(("", "ab", "AB", "e\u0301", "\ud800", "```"))
        number = rng.choice((0.1, 0.30, 0.35, 1e300, -0.0))
        return (rng.randint(-3, 3), number, None, rng.random() < 0.5, text, 10 ** rng.randint(0, 1_100))[kind]
    size = rng.randint(0, 4)
    if kind == 6:
        return [_random_value(rng, depth - 1) for _ in range(size)]
    names = rng.choices(("n", "next", "s", "a", "city", "share"), k=size)
    return {"n": 0, **{name: _random_value(rng, depth - 1) for name in names}}


def mutated_text(text: str, pieces: list[str], rng: random.Random, changes: int) -> str:
    """The text with so many pieces cut, doubled, put in or replaced by any character."""
    for _ in range(changes):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.randint(0, 8))
        new = rng.choice([rng.choice(pieces), "", text[at:end] * 2, chr(rng.randrange(1, 0x500))])
        text = text[:at] + new + text[end:]
    return text


def mutated_program(rng: random.Random, seeds: list[str]) -> str:
    """A program with one to six changes, or a splice of two."""
    text = rng.choice(seeds)
    if rng.random() < 0.2:
        other = rng.choice(seeds)
        text = text[: rng.randrange(len(text))] + other[rng.randrange(len(other)) :]
    return mutated_text(text, PROGRAM_PIECES, rng, rng.randint(1, 6))


def resident_mb(pids: list[int]) -> float:
    """Resident memory of these processes together, in MB; one that is gone counts nothing."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path("/proc", str(pid), "statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _completion(gold: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        answer = mutated_text(gold, ANSWER_PIECES, rng, rng.randint(1, 6))
    else:
        answer = "".join(rng.choices(ANSWER_PIECES, k=rng.choice((3, 6, 12, 40)))) * rng.choice((1, 1, 1, 20))
    if rng.random() < 0.1:
        answer += "".join(map(chr, rng.choices(range(0x20, 0x3000), k=8)))
    return answer if rng.random() < 0.1 else f"\\boxed{{{answer}}}"


def _checked(verdict: Verdict) -> bool:
    """Whether it says correct. Raises Broken for what no completion may bring about."""
    if verdict.outcome is Outcome.NO_VERDICT:
        raise Broken(f"no verdict: {verdict.reason}")
    if not 0.0 <= verdict.score <= 1.0 or (verdict.outcome is Outcome.CORRECT) != (verdict.score == 1.0):
        raise Broken(f"score {verdict.score} with {verdict.outcome.value}")
    if not verdict.reason:
        raise Broken("no reason")
    return verdict.outcome is Outcome.CORRECT


def _rng(what: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{what}:{seed}:{number}")


@contextmanager
def _explained(where: str, clocked: bool = True) -> Iterator[None]:
    """Turn whatever is raised within, and a use of more than `HANG_S` seconds of processor, into Broken."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Broken(f"not done after {HANG_S} s of processor time")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, HANG_S if clocked else 0)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise Broken(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _series(
    case: Callable[[int], bool],
    count: int | None,
    seconds: float | None,
    first: int,
    processes: Callable[[], list[int]],
) -> Fuzzed:
    """Run cases from number `first` on, so many of them or for so long, and look at time and memory."""
    if (count is None) == (seconds is None):
        raise ValueError("count, seconds: give one of the two")
    started, number, accepted, slowest = time.monotonic(), first, 0, 0.0
    warm_mb: float | None = None
    while True:
        done = (number - first) / count if count is not None else (time.monotonic() - started) / (seconds or 1.0)
        if warm_mb is None and done >= WARM_UP:
            gc.collect()
            warm_mb = resident_mb(processes())
        if done >= 1:
            break
        clock = time.process_time()
        accepted += case(number)
        slowest = max(slowest, time.process_time() - clock)
        number += 1
    gc.collect()
    now_mb = resident_mb(processes())
    return Fuzzed(number - first, accepted, slowest, now_mb - (warm_mb or now_mb), now_mb)
