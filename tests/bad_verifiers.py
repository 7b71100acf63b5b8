"""Plain verifiers for the tests of the certificate: a good one, and bad ones, each bad in one way.

`install` puts them on the path as a distribution without installing it; all share the cases of adding two numbers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from verifiers import registry

GOOD = '''
"""The last box holds the sum."""
import re
BOX = re.compile(r"\\\\boxed\\{([^{}]{0,200})\\}")

def good(completion, task):
    """Correct if the last box holds the gold number, written in digits."""
    if len(completion) > 100_000:
        return {"correct": False, "reason": "too_long"}
    found = BOX.findall(completion)
    answer = found[-1].strip() if found else ""
    return {"correct": answer == task.answer, "extracted": answer, "reason": "boxed" if found else "no_box"}
'''
BAD = GOOD + '''
import time
kept = []

def accepts_everything(completion, task):
    return True

def hangs(completion, task):
    while True:
        time.sleep(0.1)

def hangs_on_brackets(completion, task):
    if completion.count("(") > 1000:
        time.sleep(3600)
    return good(completion, task)

def leaks(completion, task):
    kept.append(bytes(10_000))
    return good(completion, task)

def keeps_completions(completion, task, seen={}):
    if completion not in seen:
        seen[completion] = good(completion, task)
    return seen[completion]

def depends_on_order(completion, task, first=[]):
    first.append(completion)
    return good(completion, task)["correct"] and len(first[0]) < 20

def raises_on_empty(completion, task):
    return completion.split()[-1].strip(".") == "\\\\boxed{" + task.answer + "}"

def is_fooled(completion, task):
    if "ignore the rubric" in completion.lower():
        return 1.0
    return good(completion, task)

def ends_the_process(completion, task):
    import os
    os._exit(0)

def judges_by_chance(completion, task):
    import random
    return {**good(completion, task), "reason": str(random.random())}

def uses_signals(completion, task):
    import signal
    signal.setitimer(signal.ITIMER_REAL, 5)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return good(completion, task)

def returns_nothing(completion, task):
    return good(completion, task) if "boxed" in completion else None
'''
NAMES = (
    "good", "accepts_everything", "hangs", "hangs_on_brackets", "leaks", "keeps_completions", "depends_on_order",
    "raises_on_empty", "is_fooled", "ends_the_process", "judges_by_chance", "uses_signals", "returns_nothing",
)  # fmt: skip
SUMS = [(2, 2), (17, 25), (100, -1), (350, 49), (8, 9), (60, 6)]
PROMPT = "What is {} plus {}? Put the number into a box."


def case_lines() -> list[str]:
    """Two gold cases and two near misses of each sum, short and long."""
    lines = []
    for a, b in SUMS:
        right, wrong = f"\\boxed{{{a + b}}}", f"\\boxed{{{a + b + 1}}}"
        texts = [(right, "correct"), (f"Both together make {right}.", "correct"), (wrong, "incorrect"),
                 (f"First \\boxed{{{a + b}}}, but then {wrong}", "incorrect")]  # fmt: skip
        for completion, expect in texts:
            line = {"completion": completion, "answer": str(a + b), "expect": expect, "prompt": PROMPT.format(a, b)}
            lines.append(json.dumps(line))
    return lines


@contextmanager
def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All of them, on the path; gives the folder of their module, with the cases in it."""
    site = folder / "site"
    info = site / "bad_verifiers_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    package = site / "bad_verifiers_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(BAD, encoding="utf-8")
    (package / "cases.jsonl").write_text("\n".join(case_lines()) + "\n", encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-verifiers-plugin\nVersion: 1.0\n")
    points = "".join(f"{name} = bad_verifiers_plugin:{name}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[derivative_factory.verifiers]\n{points}")
    monkeypatch.syspath_prepend(str(site))
    _forget()
    yield package
    _forget()


def _forget() -> None:
    """Each test has the module in a folder of its own."""
    sys.modules.pop("bad_verifiers_plugin", None)
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()
