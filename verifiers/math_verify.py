"""The judge `math_verify`: Math-Verify (https://github.com/huggingface/Math-Verify) as a verifier of this project.

It is the release judge of the math presets, where `math` gives the reward: other code, by other people, so that a
weakness of the reward is not one of the judge. Used as its README says: the gold answer between dollar signs,
formulas and plain numbers looked for in the completion, a box first. Needs `pip install 'derivative-factory[judges]'`;
`version` names the library's.

It evaluates what a completion says with sympy and may hang on it: judge through `verifiers.pool`, whose workers are
killed. Math-Verify's own alarms are off, since they count by the clock.

Where a completion thinks, only what follows the last `</think>` counts.

What it gets wrong is measured in docs/scoreboard.md: it accepts, for one, an unevaluated sum for a number and a
neighbouring answer such as `52_7` for `52_8`. It has no certificate; a reward needs one, a judge does not.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from configs.errors import UserError
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict

PACKAGE = "math_verify"
REMEDY = (
    "'math_verify' needs the package math-verify, which is not installed; run pip install 'derivative-factory[judges]'"
)
NOT_INSTALLED = "none"
CLOSING = "</think>"
MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
SHOWN = 200
"""Characters of the answer that are kept in a verdict."""
NUM_KEPT = 64
"""Gold answers kept parsed."""
_MARKED = re.compile(r"(?<!\\)\$|\\boxed")
"""A gold answer that is marked as a formula already; `\\$5` is not."""


def installed() -> str:
    """Version of the library, or NOT_INSTALLED."""
    try:
        return version("math-verify")
    except PackageNotFoundError:
        return NOT_INSTALLED


class MathVerifyVerifier:
    """Correct if Math-Verify finds the gold answer in the completion."""

    name = "math_verify"
    version = f"1+math-verify-{installed()}"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its final answer."""
        if not task.answer.strip():
            return no_verdict("empty_gold")
        if len(completion) > MAX_COMPLETION:
            return incorrect(OVER_BUDGET)
        gold = _gold(task.answer)
        if not gold:
            return no_verdict("gold_unreadable")
        found = _parse(completion.rpartition(CLOSING)[2])
        if not found:
            return incorrect("no_answer")
        shown = str(found[-1])[:SHOWN]
        if _library().verify(list(gold), found, timeout_seconds=None):
            return correct(shown, "same_value")
        return incorrect("other_value", shown)

    def warm_up(self) -> None:
        """Import sympy and the grammar, and parse once. Raises UserError where the package is not installed."""
        _gold("1")


@functools.cache
def _library() -> Any:
    if importlib.util.find_spec(PACKAGE) is None:
        raise UserError(f"verifier: {REMEDY}")
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)  # it warns that nothing but the caller stops it: the pool does
    return importlib.import_module(PACKAGE)


def _parse(text: str) -> list[Any]:
    library = _library()
    kinds = [library.LatexExtractionConfig(boxed_match_priority=0), library.ExprExtractionConfig()]
    return list(library.parse(text, extraction_config=kinds, parsing_timeout=None))


@functools.lru_cache(maxsize=NUM_KEPT)
def _gold(answer: str) -> tuple[Any, ...]:
    return tuple(_parse(answer if _MARKED.search(answer) else f"${answer}$"))
