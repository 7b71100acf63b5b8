"""The puzzle verifier: reasoning-gym's own scoring of its problems (https://github.com/open-thought/reasoning-gym).

The answer is found as the math verifier finds it (boxed, marked, last line) and handed to `score_answer` of the family
named in the task's metadata. Correct if the score is 1; any other score is kept as partial credit of an incorrect
verdict. For arithmetic families it is a judge independent of the math verifier, which makes it fit to measure a model
that was rewarded by that one.

Departures: what some families' scores would run as code, or take although it is wrong, must first meet the conditions
of `verifiers.puzzle_conditions`. Answers with NaN, infinity or digits of other scripts, which some scores mistake for
right, are incorrect.

What this does not do: partial credit means something else in every family. The clock is the pool's.
"""

from __future__ import annotations

import functools
import json
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verifiers.answers.clean import clean
from verifiers.answers.extract import Extraction, extract, extract_text
from verifiers.answers.numbers import read_number
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.puzzle_conditions import GUARDS, STRICTER

MAX_ANSWER = 20_000
"""Characters of an answer."""
SHOWN = 200

_NOT_FINITE = re.compile(r"(?<![A-Za-z])(?:nan|inf(?:inity)?|zoo|oo)[ij]?(?![A-Za-z])", re.IGNORECASE)
_COMMANDS = {
    "\\times": "\u00d7",
    "\\cdot": "*",
    "\\div": "/",
    "\\{": "{",
    "\\}": "}",
    "\\_": "_",
    "\\,": " ",
    "\\ ": " ",
}
_TEXT = re.compile(r"\\(?:text|texttt|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


class PuzzleVerifier:
    """Correct if reasoning-gym's own scoring gives the extracted answer full marks."""

    name = "puzzles"

    def __init__(self) -> None:
        try:
            library = version("reasoning-gym")
        except PackageNotFoundError:
            library = "absent"
        self.version = f"2+reasoning-gym-{library}"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion of a `reasoning_gym/...` task."""
        family = task.metadata.get("family")
        dataset = _dataset(str(family), json.dumps(task.metadata.get("params", {}), sort_keys=True)) if family else None
        if dataset is None:
            return no_verdict(f"unknown_family: {family}")
        found = _extract(task, completion)
        if not found.text:
            return incorrect("no_answer" if found.text is None else f"empty_answer_{found.kind}", found.text)
        shown = found.text[:SHOWN]
        if len(found.text) > MAX_ANSWER:
            return incorrect(OVER_BUDGET, shown)
        entry = {"question": task.prompt, "answer": task.answer or None, "metadata": _restored(str(family), task)}
        scores = [_score(dataset, str(family), text, entry) for text in _spellings(task, found.text)]
        best = max(scores)
        if best == 1.0:
            return correct(shown, f"full_score_{found.kind}")
        return incorrect(f"score_below_one_{found.kind}", shown, best)

    def warm_up(self) -> None:
        """Import reasoning-gym, which takes a second."""
        import reasoning_gym  # noqa: F401


@functools.lru_cache(maxsize=256)
def _dataset(family: str, params: str) -> Any:
    """The family's data set, for its `score_answer`; None where the family or its settings are unknown."""
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(family, **json.loads(params), seed=0, size=1)
    except (ValueError, TypeError, AssertionError):
        return None


def _extract(task: Task, completion: str) -> Extraction:
    return extract(completion) if read_number(task.answer) is not None else extract_text(completion)


def _spellings(task: Task, text: str) -> list[str]:
    """The answer as written, then without LaTeX, then without the unit that the gold number does not have."""
    spelled = text
    if "\\" in text or "$" in text:
        spelled = _TEXT.sub(r"\1", text.strip().strip("$"))
        for command, plain in _COMMANDS.items():
            spelled = spelled.replace(command, plain)
    number, gold = read_number(clean(text)), read_number(task.answer)
    bare = [text, spelled.strip()]
    if number is not None and gold is not None and number.unit and number.value.denominator == 1:
        bare.append(str(number.value.numerator))
    return list(dict.fromkeys(bare))


def _score(dataset: Any, family: str, text: str, entry: dict[str, Any]) -> float:
    """The family's score in [0, 1]; 0 for what must not reach it."""
    gold = entry["answer"] or ""
    if text != gold and (not _finite(text, gold) or not GUARDS.get(family, bool)(text)):
        return 0.0
    if family in STRICTER and not STRICTER[family](text, entry):
        return 0.0
    try:
        score = float(dataset.score_answer(answer=text, entry=entry))
    except Exception:
        dataset.score_answer(answer=gold, entry=entry)  # raises as well where the fault is not the completion's
        return 0.0
    return min(1.0, max(0.0, score)) if score == score else 0.0


def _finite(text: str, gold: str) -> bool:
    """No NaN, infinity or foreign digits, unless the gold answer has them too."""
    if _NOT_FINITE.search(text) and not _NOT_FINITE.search(gold):
        return False
    return (
        gold == text
        or not any(c.isdigit() and not c.isascii() for c in text)
        or any(c.isdigit() and not c.isascii() for c in gold)
    )


def _restored(family: str, task: Task) -> dict[str, Any]:
    """Metadata as the family made them: JSON turns the tuples of its boards into lists."""
    metadata = dict(task.metadata)
    if family in ("arc_agi", "rearc"):
        for key in ("input", "output"):
            metadata[key] = tuple(map(tuple, metadata[key]))
    return metadata
