"""Public benchmarks that are judged by tests or constraints: HumanEval, MBPP, IFEval. Rows in, tasks out.

| set | prompt | judged by |
|---|---|---|
| humaneval | signature and docstring, as published; completions go on from it | its `check(candidate)` |
| mbpp, mbpp_sanitized | the text and all of its tests, worded as in Austin et al. | its assert lists |
| ifeval | the request | its constraints, all of them in the response as it is (prompt-level strict) |

Programs are run by the verifier `code`, tests in a sandbox apart from the candidate's, so that neither a test nor an
expected value is in the candidate's process. The tests of HumanEval and MBPP are marked hidden as a whole
(`hidden_tests`), since no reward looks at those of a held-out problem: `code_hidden` judges by them too. MBPP shows its
tests in the prompt, as its authors do, so that a table of the shown values passes: a limit of the benchmark, not of the
judge. Three of MBPP's 874 tasks build their arguments of a class that the solution brings, which are no plain data:
their tests run in the candidate's own process (`isolation: shared`), and could be cheated there.

The gold answer is the whole reference program (empty for IFEval). Line ends of MBPP's programs are plain ones here.

Sources: Chen et al. 2021 (arXiv:2107.03374), Austin et al. 2021 (arXiv:2108.07732, section 4.1), Zhou et al. 2023
(arXiv:2311.07911).

What this does not do: the further tests of HumanEval+ and MBPP+ are not in the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from configs.errors import UserError
from verifiers.api import Task
from verifiers.sandbox.problem import called_names

HUMANEVAL_TIME_S = 5.0
MBPP_TIME_S = 60.0
"""Processor seconds of one program; one reference program of MBPP needs many."""
ALWAYS_IMPORTED = "import math, sys"
"""Before MBPP's tests: some of them use `math` and leave its import to the solution."""
TESTS_FOLLOW = "Your code should pass these tests:"


def task_of(layout: str, row: Mapping[str, Any], source: str) -> Task:
    """The task of one row of a set with this layout (`tests` of its catalogue entry).

    Raises:
        UserError: The row lacks a column that its layout needs; names the row and the column.
    """
    try:
        return LAYOUTS[layout](row, source)
    except (KeyError, TypeError, SyntaxError) as error:
        raise UserError(
            f"{row.get('id')}: no problem of {source} ({type(error).__name__}: {error}); "
            "the file is not the data set that the catalogue describes"
        ) from error


def _humaneval(row: Mapping[str, Any], source: str) -> Task:
    raw = row["raw"]
    metadata = {
        "kind": "script",
        "entry_point": raw["entry_point"],
        "prompt": raw["prompt"],
        "test": raw["test"],
        "time_s": HUMANEVAL_TIME_S,
        "hidden_tests": True,
    }
    return Task(row["id"], raw["prompt"], raw["prompt"] + raw["canonical_solution"], "code", metadata, source)


def _mbpp(row: Mapping[str, Any], source: str) -> Task:
    raw = row["raw"]
    tests = [str(test) for test in raw["test_list"]]
    called, setup = called_names(tests), raw.get("test_setup_code") or ""
    before = [ALWAYS_IMPORTED, *raw.get("test_imports", []), setup]
    metadata: dict[str, Any] = {
        "kind": "script",
        "entry_point": called,
        "test": tests,
        "setup": _plain_lines("\n".join(filter(None, before))),
        "time_s": MBPP_TIME_S,
        "hidden_tests": True,
        "question": row["question"].strip(),
        "first_test": tests[0],
    }
    if setup or any(re.search(rf"^class +{name}\b", raw["code"], re.MULTILINE) for name in called):
        # There a script's setup is no part of its world, so that it stands before the assertions.
        metadata |= {"isolation": "shared", "test": ["\n".join([metadata["setup"], *tests])], "setup": ""}
    prompt = "\n".join([f"{row['question'].strip()} {TESTS_FOLLOW}", "", *tests])
    return Task(row["id"], prompt, _plain_lines(raw["code"]).strip() + "\n", "code", metadata, source)


def _ifeval(row: Mapping[str, Any], source: str) -> Task:
    raw = row["raw"]
    metadata = {"instruction_id_list": list(raw["instruction_id_list"]), "kwargs": list(raw["kwargs"])}
    return Task(row["id"], row["question"], "", "instructions", metadata, source)


def _plain_lines(text: str) -> str:
    return text.replace("\r\n", "\n")


LAYOUTS: dict[str, Callable[[Mapping[str, Any], str], Task]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "ifeval": _ifeval,
}
"""Layouts by the name that a catalogue entry gives in `tests`."""
