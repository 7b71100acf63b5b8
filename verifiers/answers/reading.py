"""What kind of thing an answer is read as, to see which gold answers of a data set would be compared as mere text.

What this does not do: it takes no part in judging.
"""

from __future__ import annotations

import re

from verifiers.answers import forms
from verifiers.answers.clean import clean
from verifiers.answers.expression import Unreadable, parse
from verifiers.answers.families import residues
from verifiers.answers.numbers import annotation_of, read_number
from verifiers.answers.sets import RELATION, real_set
from verifiers.answers.structure import cases_of, opened, rows_of, split_list
from verifiers.answers.words import read_time, read_words

_RATIO = re.compile(r"[0-9.]+(?:\s*:\s*[0-9.]+)+")
_WORDS = re.compile(
    r"[^\\=<>^_]*[A-Za-z]{2}[^\\=<>^_]*[A-Za-z]{2}[^\\=<>^_]*"
    r"|[^\\0-9=<>^_]*[A-Za-z]{2}[^\\=<>^_]*|[A-Za-z](?:[A-Za-z]|\s*,\s*[A-Za-z])*")


def reads_as(answer: str) -> str:
    """The kind of an answer: number, time, ratio, expression, matrix, cases, set, residues, list, relation or words.

    `unreadable` is what looks like mathematics and is none that is known; it is compared as text.
    """
    try:
        return _kind(annotation_of(clean(answer))[0], 0)
    except (Unreadable, RecursionError):
        return "unreadable"


def _kind(text: str, depth: int) -> str:
    if depth > 5 or not text:
        return "unreadable"
    if read_number(text) is not None or read_words(text) is not None:
        return "number"
    if read_time(text) is not None:
        return "time"
    if _RATIO.fullmatch(text):
        return "ratio"
    try:
        parse(text)
        return "expression"
    except Unreadable:
        pass
    for name, reader in (("matrix", rows_of), ("cases", cases_of), ("set", real_set), ("residues", residues)):
        if reader(text) is not None:
            return name
    bare = forms.unassigned(text)
    if bare != text:
        return _kind(bare, depth + 1)
    if _WORDS.fullmatch(text):
        return "words"
    _, inner = opened(text)
    parts = split_list(inner)
    if len(parts) > 1 or inner != text:
        kinds = {_kind(part, depth + 1) for part in parts}
        return "unreadable" if "unreadable" in kinds else "list"
    sides = [side.strip() for side in RELATION.split(text.replace("\\pm", "+").replace("\\approx", "="))]
    if text.count("\\pm") or len(sides) > 1:
        return "unreadable" if any(_kind(side, depth + 1) == "unreadable" for side in sides if side) else "relation"
    if text.strip("+- ") in ("\\infty", "\\emptyset"):
        return "set"
    expression, unit = forms_unit(text)
    return _kind(expression, depth + 1) if unit else "unreadable"


def forms_unit(text: str) -> tuple[str, str]:
    """An expression and the unit after it."""
    from verifiers.answers.equivalence import without_unit

    return without_unit(text)
