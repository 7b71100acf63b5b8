"""The parts of a completion that rewrites and mutations act on: the answer behind a thought, its box, its program.

Everything here reads text and knows no verifier. What it does not find is left alone: a rewrite that cannot be made for
sure is not made.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace

from verifiers.cases import Case

CLOSING = "</think>"
BOX = "\\boxed{"
_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_MARKERS = re.compile(r"\banswers?\s*(?:is|are|:)|####", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w%]|\.\d)")

Span = tuple[int, int]
"""Where a part begins and ends."""


def with_completion(case: Case, completion: str) -> Case:
    """The same task with another completion."""
    return replace(case, completion=completion)


def answer_start(completion: str) -> int:
    """Where the answer begins: behind the last closed thought, else at the start."""
    found = completion.rfind(CLOSING)
    return 0 if found < 0 else found + len(CLOSING)


def boxed(completion: str) -> Span | None:
    """The content of the last box of the answer; None where there is none or it does not close.

    >>> boxed("so \\\\boxed{42}.")
    (10, 12)
    """
    start = completion.rfind(BOX)
    if start < answer_start(completion):
        return None
    start += len(BOX)
    depth = 1
    for place in range(start, len(completion)):
        depth += (completion[place] == "{") - (completion[place] == "}")
        if depth == 0:
            return start, place
    return None


def program(completion: str) -> Span | None:
    """The Python program of an answer: in its last fence, else the whole answer; None where it is none for sure."""
    fences = [match for match in _FENCE.finditer(completion) if match.start() >= answer_start(completion)]
    if fences:
        language, source = fences[-1][1].lower(), fences[-1][2]
        known = language in ("python", "py", "python3") or (not language and is_program(source))
        return fences[-1].span(2) if known and tree_of(source) is not None else None
    start = answer_start(completion)
    return (start, len(completion)) if is_program(completion[start:]) else None


def is_program(text: str) -> bool:
    """Whether a text is Python beyond doubt: `x = 5` is mathematics as well, and so it is not.

    >>> is_program("double = lambda n: n * 2"), is_program("x = 5"), is_program("print(input())")
    (True, False, True)
    """
    tree = tree_of(text)
    if tree is None:
        return False
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
            return True
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            return True
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "print":
            return True
    return False


def tree_of(source: str) -> ast.Module | None:
    """The syntax tree of a program; None for what is none."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list and nothing else."""
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def is_marked(completion: str) -> bool:
    """Whether the answer can be found among other words: a box, a closed thought, a fence, `answer is`, `####`."""
    rest = completion[answer_start(completion) :]
    return bool(answer_start(completion) or boxed(completion) or "```" in rest or _MARKERS.search(rest))


def answer(case: Case) -> Span | None:
    """Where the completion states its answer: the last box, else the gold answer itself where it stands alone, else the
    last number where it is the gold number; None where that cannot be told."""
    completion, gold = case.completion, case.task.answer.strip()
    found = boxed(completion)
    if found is not None or not gold:
        return found
    start = answer_start(completion)
    alone = re.compile(rf"(?<![\w.]){re.escape(gold)}(?!\w|\.\d)")
    places = [match.span() for match in alone.finditer(completion, start)]
    if places:
        return places[-1]
    numbers = [match.span() for match in _LAST_NUMBER.finditer(completion, start)]
    if numbers and same_number(completion[slice(*numbers[-1])], gold):
        return numbers[-1]
    return None


def same_number(one: str, other: str) -> bool:
    """Whether both are plain numbers of the same value."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def put(text: str, span: Span, new: str) -> str:
    """The text with another content at this place."""
    return text[: span[0]] + new + text[span[1] :]


def shown(text: str, limit: int = 300) -> str:
    """A text for people: escapes for what does not print, and its middle left out where it is long."""
    kept = text[:limit]
    plain = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in kept)
    return plain if len(text) <= limit else f"{plain} ... ({len(text):,} characters)"
