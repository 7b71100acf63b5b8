"""The puzzle verifier: reasoning-gym's own scoring of its problems (https://github.com/open-thought/reasoning-gym).

The answer is found as the math verifier finds it (boxed, marked, last line) and handed to `score_answer` of the family
named in the task's metadata. Correct if the score is 1; any other score is kept as partial credit of an incorrect
verdict. For arithmetic families it is a judge independent of the math verifier, which makes it fit to measure a model
that was rewarded by that one.

Departures: some families pass an answer to `eval` or to sympy's `parse_expr`, which run code. Their answers must
first be a plain list or a plain expression with small powers, by our own reader. Answers with NaN, infinity or digits
of other scripts, which some scores mistake for right, are incorrect, and the families in `STRICTER` must meet a
condition more.

What this does not do: partial credit means something else in every family. The clock is the pool's.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verifiers.answers.clean import clean
from verifiers.answers.evaluate import exact
from verifiers.answers.expression import TooComplex, Tree, Unreadable, parse
from verifiers.answers.extract import Extraction, extract, extract_text
from verifiers.answers.numbers import read_number
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict

MAX_ANSWER = 20_000
"""Characters of an answer."""
MAX_POWER = 100
"""Exponent in an expression that goes to sympy."""
SHOWN = 200

_NOT_FINITE = re.compile(r"(?<![A-Za-z])(?:nan|inf(?:inity)?|zoo|oo)[ij]?(?![A-Za-z])", re.IGNORECASE)
_PLAIN_LIST = re.compile(r"[A-Za-z0-9\s\[\],'\"_-]*")
_ARITHMETIC = re.compile(r"[0-9+\-*/() .]*")
_CALCULUS = re.compile(
    r"(?:[0-9+\-*/()^ .]|\b(?:[a-zA-Z]|sin|cos|tan|exp|log|ln|sqrt|asin|acos|atan|sinh|cosh|tanh|pi)(?![A-Za-z]))*")
_COMMANDS = {
    "\\times": "\u00d7", "\\cdot": "*", "\\div": "/", "\\{": "{", "\\}": "}", "\\_": "_", "\\,": " ", "\\ ": " ",
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
        self.version = f"1+reasoning-gym-{library}"

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
    if text != gold and (not _finite(text, gold) or not GUARDS.get(family, _anything)(text)):
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
    return gold == text or not any(c.isdigit() and not c.isascii() for c in text) or any(
        c.isdigit() and not c.isascii() for c in gold)


def _anything(text: str) -> bool:
    return True


def _plain_list(text: str) -> bool:
    """Lists of words and numbers only: nothing that `eval` could call or multiply."""
    return len(text) <= 5_000 and _PLAIN_LIST.fullmatch(text) is not None


def _plain_arithmetic(text: str) -> bool:
    return _ARITHMETIC.fullmatch(text) is not None and _small_powers(text)


def _plain_calculus(text: str) -> bool:
    return len(text) <= 1_000 and _CALCULUS.fullmatch(text) is not None and _small_powers(text)


def _small_powers(text: str) -> bool:
    """Readable by our own parser, with literal exponents of at most MAX_POWER and no power of a power."""
    try:
        tree = parse(text)
        exact(tree)
    except Unreadable:
        return False
    return _power_depth(tree) <= 1


def _power_depth(tree: Tree) -> int:
    """How deep powers are nested; 99 where an exponent is too large or is no number."""
    if tree[0] in ("number", "name"):
        return 0
    depth = max(_power_depth(child) for child in tree[1:] if isinstance(child, tuple))
    if tree[0] == "factorial":
        return 99
    if tree[0] == "power":
        try:
            exponent = exact(tree[2])
        except (TooComplex, Unreadable):
            return 99
        if tree[1] != ("name", "e") and (exponent is None or abs(exponent) > MAX_POWER):
            return 99
        depth += 1
    return depth


def _solves_24(text: str, entry: dict[str, Any]) -> bool:
    """The four given numbers, each once, with value 24."""
    try:
        value = exact(parse(text))
    except Unreadable:
        return False
    used = sorted(map(int, re.findall(r"[0-9]+", text)))
    return value == Fraction(24) and used == sorted(entry["metadata"].get("numbers", []))


def _same_words(text: str, entry: dict[str, Any]) -> bool:
    return text.strip().casefold() == str(entry["answer"]).strip().casefold()


def _same_number(text: str, entry: dict[str, Any]) -> bool:
    """One number, and the gold one; a unit may follow it."""
    number, gold = read_number(clean(text)), read_number(str(entry["answer"]))
    return number is not None and gold is not None and number.value == gold.value


def _near_gold(text: str, entry: dict[str, Any]) -> bool:
    """Within the family's own tolerance of the gold probability."""
    try:
        return abs(Fraction(text.replace(",", "")) - Fraction(entry["answer"])) <= Fraction(1, 10_000)
    except (ValueError, ZeroDivisionError):
        return False


def _restored(family: str, task: Task) -> dict[str, Any]:
    """Metadata as the family made them: JSON turns the tuples of its boards into lists."""
    metadata = dict(task.metadata)
    if family in ("arc_agi", "rearc"):
        for key in ("input", "output"):
            metadata[key] = tuple(map(tuple, metadata[key]))
    return metadata


GUARDS: dict[str, Callable[[str], bool]] = {
    "string_insertion": _plain_list,
    "spiral_matrix": _plain_list,
    "binary_matrix": _plain_list,
    "n_queens": _plain_list,
    "countdown": _plain_arithmetic,
    "puzzle24": _plain_arithmetic,
    "simple_integration": _plain_calculus,
    "intermediate_integration": _plain_calculus,
    "polynomial_multiplication": _plain_calculus,
}
"""What an answer must look like before a family's `score_answer` may evaluate it."""

STRICTER: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "puzzle24": _solves_24,  # the family's score takes any four numbers in range that make 24
    "game_of_life_halting": _same_words,  # it takes any text that is not empty for True, and for False as well
    "gsm_symbolic": _same_number,  # it looks for the gold digits anywhere: "-7" and "7 or 5" pass for 7
    "spell_backward": _same_words,  # it takes the gold word with anything after it
    "coin_flip": _near_gold,  # it gives full marks for a lone first digit of the gold answer
}
"""Conditions of our own for families whose score gives full marks to wrong answers."""
