"""Answers that stand for a family: a free parameter under another name, residue classes, products with dots.

`x = k\\pi` and `n\\pi` say the same, since `k` is the author's own letter. A parameter may be renamed only if the
question uses neither letter, if it runs through the integers in a period of pi, or if the gold answer names its
unknowns as a tuple; the two sides must differ in exactly that one letter.

`a_1 a_2 \\cdots a_n` is written out for a fixed number of terms, on both sides alike.

What this does not do: it compares no sets of values that are parametrised differently (`2k+1` and `2k-1`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from verifiers.answers.expression import Tree, Unreadable
from verifiers.answers.question import letters_of

NUM_TERMS = 5
"""Terms that a product or sum with dots is written out to."""
MAX_MODULUS = 10_000

_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z]")
_PARAMETERS = frozenset("knmltscjCK")
_INTEGERS = frozenset("knmljiNZ")
_PERIOD = re.compile(
    r"(?:(?<![A-Za-z])(?P<a>[A-Za-z])\s*\*?\s*\\pi|\\pi\s*\*?\s*(?P<b>[A-Za-z])(?![A-Za-z])"
    r"|(?<![A-Za-z])(?P<c>[A-Za-z])\s*(?:\*\s*)?[0-9]{2,3} degrees"
    r"|[0-9]{2,3} degrees\s*\*?\s*(?P<d>[A-Za-z])(?![A-Za-z]))")
_LIST = r"(?P<list>-?[0-9]+(?:\s*(?:,|\\text\{ or \}|,?\s*or|,?\s*and)\s*-?[0-9]+)*)"
_CONGRUENT = re.compile(
    rf"(?:.{{0,40}}?(?:\\equiv|congruent to|leaves? (?:a )?remainders? (?:of )?))\s*{_LIST}\s*,?\s*"
    r"(?:\\pmod|\(?\s*\\?(?:b?mod(?:ulo)?)(?![a-z])|when divided by)\s*\{?\s*(?P<modulus>[0-9]+)\s*\}?\s*\)?\.?",
    re.DOTALL)
_LINEAR = re.compile(
    r"(?:[A-Za-z]\s*=\s*)?(?P<modulus>[0-9]+)\s*\*?\s*(?P<letter>[a-z])\s*(?P<rest>[+-]\s*[0-9]+)?")


def renaming(gold: str, answer: str, question: str, declared: bool = False) -> tuple[str, str] | None:
    """The one letter of the answer that stands for a parameter of the gold answer, and that parameter; else None.

    Args:
        gold: The gold answer, without the unknowns before its equals sign.
        answer: The answer, likewise.
        question: What was asked, or nothing.
        declared: The gold answer names a tuple of unknowns, so that other letters in it are parameters.
    """
    ours, theirs = _letters(gold), _letters(answer)
    old, new = theirs - ours, ours - theirs
    if len(old) != 1 or len(new) != 1:
        return None
    parameter, letter = new.pop(), old.pop()
    if parameter in _INTEGERS and letter in _INTEGERS and _in_period(gold, parameter) and _in_period(answer, letter):
        return letter, parameter
    if question:
        used = letters_of(question)
        return None if parameter in used or letter in used else (letter, parameter)
    return (letter, parameter) if declared and letter in _PARAMETERS else None


def with_letter(text: str, old: str, new: str) -> str:
    """The text with one letter renamed, outside commands and words."""
    pieces = re.split(r"(\\[A-Za-z]+|[A-Za-z]{5,})", text)
    return "".join(piece if index % 2 else piece.replace(old, new) for index, piece in enumerate(pieces))


def residues(text: str) -> tuple[int, frozenset[int], bool] | None:
    """Modulus, residues, and whether the text says so in words or signs of congruence; None where it names none."""
    match = _CONGRUENT.fullmatch(text)
    if match is not None:
        modulus = int(match["modulus"][:6])
        if not 2 <= modulus <= MAX_MODULUS:
            return None
        listed = re.findall(r"-?[0-9]+", match["list"])
        return modulus, frozenset(int(digits[:300]) % modulus for digits in listed), True
    parts = [_LINEAR.fullmatch(part.strip()) for part in re.split(r",|\bor\b|\band\b", text) if part.strip()]
    if not parts or any(part is None for part in parts):
        return None
    moduli = {part["modulus"][:6] for part in parts if part is not None}
    if len(moduli) != 1 or not 2 <= (modulus := int(moduli.pop())) <= MAX_MODULUS:
        return None
    rests = [(part["rest"] or "0").replace(" ", "") for part in parts if part is not None]
    return modulus, frozenset(int(rest[:300]) % modulus for rest in rests), False


def has_dots(tree: Tree) -> bool:
    """Whether a sum or product in the tree goes on with dots."""
    return tree == ("dots",) or any(has_dots(part) for part in tree[1:] if isinstance(part, tuple))


def written_out(first: Tree, second: Tree) -> tuple[Tree, Tree]:
    """Two trees with their dots written out, the same last index being `NUM_TERMS`. Raises Unreadable if unclear."""
    last: list[Tree] = []
    first, second = _expanded(first, last), _expanded(second, last)
    if len(set(last)) != 1 or has_dots(first) or has_dots(second):
        raise Unreadable("dots that run to more than one end")
    if last[0][0] == "name":
        first, second = (_with_index(tree, last[0][1], NUM_TERMS) for tree in (first, second))
    return first, second


def _expanded(tree: Tree, last: list[Tree]) -> Tree:
    kind = tree[0]
    if kind in ("add", "multiply"):
        terms = _flat(tree, kind)
        if ("dots",) in terms:
            return _series(kind, terms, last)
    if kind in ("number", "name", "dots"):
        return tree
    return (kind, *(_expanded(part, last) if isinstance(part, tuple) else part for part in tree[1:]))


def _series(kind: str, terms: list[Tree], last: list[Tree]) -> Tree:
    place = terms.index(("dots",))
    before, after = terms[:place], terms[place + 1:]
    if len(before) < 2 or not after or ("dots",) in after:
        raise Unreadable("dots without two terms before them and one after")
    first, second, end = before[-2], before[-1], after[0]
    start = 1
    step = _index_of(first, second, 1)
    if step is None:
        raise Unreadable("terms that do not step by one index")
    final = _end_index(first, end)
    if final is None or (final[0] == "number" and not 3 <= final[1] <= 40):
        raise Unreadable("a last term of another form")
    last.append(final)
    stop = int(final[1]) if final[0] == "number" else NUM_TERMS
    series = [_stepped(first, second, index) for index in range(start, stop + 1)]
    result: Tree | None = None
    for term in [*before[:-2], *series, *after[1:]]:
        result = term if result is None else (kind, result, term)
    assert result is not None
    return result


def _index_of(first: Tree, second: Tree, index: int) -> bool | None:
    """True where the second term is the first with every differing 1 a 2; None otherwise or where nothing differs."""
    places = list(_differences(first, second))
    wanted = (str(index), str(index + 1))
    return True if places and all((_index(a), _index(b)) == wanted for a, b in places) else None


def _end_index(first: Tree, end: Tree) -> Tree | None:
    found = {_index(b) for a, b in _differences(first, end) if _index(a) == "1"}
    clean = all(_index(a) == "1" for a, _ in _differences(first, end))
    if len(found) != 1 or not clean:
        return None
    index = found.pop()
    if index is None:
        return None
    return ("number", Fraction(index)) if index.isdecimal() else ("name", index) if index.isalpha() else None


def _index(leaf: Any) -> str | None:
    """What a leaf counts by: a number itself, a name's subscript."""
    if isinstance(leaf, tuple) and leaf[0] == "number":
        return str(leaf[1])
    if isinstance(leaf, tuple) and leaf[0] == "name":
        return str(leaf[1]).rpartition("_")[2]
    return None


def _differences(first: Tree, second: Tree) -> list[tuple[Tree, Tree]]:
    if first == second:
        return []
    leaves = ("number", "name")
    if first[0] in leaves or second[0] in leaves or first[0] != second[0] or len(first) != len(second):
        return [(first, second)]
    return [pair for a, b in zip(first[1:], second[1:], strict=True) if isinstance(a, tuple) and isinstance(b, tuple)
            for pair in _differences(a, b)]


def _stepped(first: Tree, second: Tree, index: int) -> Tree:
    """The term of an index, made from the places where the first two terms differ."""
    if first == second:
        return first
    if first[0] == "number":
        return ("number", first[1] + index - 1)
    if first[0] == "name":
        return ("name", f"{first[1].rpartition('_')[0]}_{index}")
    return (first[0], *(_stepped(a, b, index) if isinstance(a, tuple) else a
                        for a, b in zip(first[1:], second[1:], strict=True)))


def _with_index(tree: Tree, name: str, index: int) -> Tree:
    if tree[0] == "name":
        if tree[1] == name:
            return ("number", Fraction(index))
        stem, mark, subscript = tree[1].rpartition("_")
        return ("name", f"{stem}_{index}") if mark and subscript == name else tree
    if tree[0] == "number":
        return tree
    return (tree[0], *(_with_index(part, name, index) if isinstance(part, tuple) else part for part in tree[1:]))


def _flat(tree: Tree, kind: str) -> list[Tree]:
    return [*_flat(tree[1], kind), *_flat(tree[2], kind)] if tree[0] == kind else [tree]


def _letters(text: str) -> set[str]:
    return set(_LETTER.findall(re.sub(r"[A-Za-z]{5,}", " ", _COMMAND.sub(" ", text)))) - {"e", "i"}


def _in_period(text: str, letter: str) -> bool:
    return any(letter in match.groups() for match in _PERIOD.finditer(text))
