"""Fuzzed programs: honest ones with pieces cut, doubled and broken. The judge stands, and so does its memory."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest

from verifiers.api import Outcome, Task
from verifiers.code import judge_with
from verifiers.sandbox.judging import Judge

HOSTILE = Path(__file__).parents[1] / "hostile"
SEEDS = [
    "def solve(n):\n    total = 0\n    for k in range(n):\n        total += k * k\n    return total\n",
    "def solve(n):\n    if n < 2:\n        return n\n    return solve(n - 1) + solve(n - 2)\n",
    "import re\n\n\ndef solve(n):\n    return [int(d) for d in re.findall(r'[0-9]', str(n))]\n",
    "class Solver:\n    n = 3\n\n\ndef solve(n):\n    return {Solver().n: (n, {n})}\n",
    "from functools import lru_cache\n\n\n@lru_cache\ndef solve(n):\n    return 1 if n < 1 else n * solve(n - 1)\n",
]
PIECES = [
    "0",
    "-1",
    "10**9",
    "n",
    "()",
    "[",
    ")",
    "None",
    "yield ",
    "return ",
    "while True: ",
    "lambda: ",
    "*",
    "**",
    "\n",
    "    ",
    "import os\n",
    "del n\n",
    "raise ",
    "try:\n",
    "except:\n",
    "\x00",
    "\ud800",
    "é",
    "'",
    '"""',
    "#",
    "f'{n}'",
    "@",
    ":=",
]
TASK = Task(
    "1",
    "",
    "",
    "code",
    {
        "kind": "calls",
        "entry_point": "solve",
        "time_s": 0.2,
        "memory_mb": 128,
        "calls": [{"args": [5], "expected": "never"}],
    },
)


def mutated(rng: random.Random, seeds: list[str]) -> str:
    """A seed with one to six changes, or a splice of two."""
    text = rng.choice(seeds)
    if rng.random() < 0.2:
        other = rng.choice(seeds)
        text = text[: rng.randrange(len(text))] + other[rng.randrange(len(other)) :]
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.randint(0, 8))
        text = (
            text[:at]
            + rng.choice([rng.choice(PIECES), "", text[at:end] * 2, chr(rng.randrange(1, 0x500))])
            + text[end:]
        )
    return text


def fuzz(num: int, seed: int) -> None:
    rng = random.Random(seed)
    seeds = SEEDS + [
        path.read_text() for path in sorted(HOSTILE.glob("*.py")) if not path.name.startswith(("hang_", "bomb_"))
    ]
    with Judge() as judge:
        peak_mb = 0.0
        for number in range(num):
            program = mutated(rng, seeds)
            verdict = judge_with(judge, TASK, f"```python\n{program}\n```")
            assert verdict.outcome is Outcome.INCORRECT and verdict.reason, (number, program)
            if number == num // 10:
                peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - peak_mb < 64


def test_a_few_fuzzed_programs_are_judged_and_nothing_breaks() -> None:
    fuzz(40, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_fuzzed_programs_are_judged_and_nothing_breaks() -> None:
    fuzz(10_000, 2)
