"""Whether an answer says the same as the gold answer.

Cheap and exact comparisons come first: the same text, the same number. Then both are taken apart
(`verifiers.answers.forms`) into lists, tuples, intervals, sets, matrices, cases, equations and inequalities, and their
parts are compared: an element as a number, else as an expression (`verifiers.answers.evaluate`), else as text.

Where the gold answer is a plain number, so must the answer be: `4 - 1 - 7` is not accepted for -4, nor `8/2` for 4,
since copying the question must not pay. A list without brackets and a set have no order; a tuple and an interval have
one. The question, where it is given, decides what the answers alone leave open: whether 40 and 40% are the same,
whether a rounded value will do, which letters are the author's own (`verifiers.answers.question`).

All work on one pair of answers is counted; beyond `MAX_WORK` they count as different (`over_budget`).

What this does not do: it solves nothing and proves no identity symbolically.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verifiers.answers import forms
from verifiers.answers.approximation import close_enough, rounds_to
from verifiers.answers.clean import clean, same_text
from verifiers.answers.evaluate import proportional, same_value, size
from verifiers.answers.expression import DEGREE, TooComplex, Tree, Unreadable, names_of, parse
from verifiers.answers.families import has_dots, renaming, residues, with_letter, written_out
from verifiers.answers.numbers import Number, annotation_of, equal_numbers, read_number
from verifiers.answers.question import asks_base, asks_percent, asks_ratio, completes, options_of
from verifiers.answers.sets import RELATION
from verifiers.answers.structure import opened
from verifiers.answers.units import converted, read_unit
from verifiers.answers.words import read_time, read_words

MAX_ANSWER = 2_000
"""Characters of an answer that is not the very text of the gold answer."""
MAX_NESTING = 5
MAX_WORK = 60_000
"""Comparisons plus, for those by value, the nodes of both trees."""

_CLAUSE = re.compile(
    r"[, ]\s*(?:(?:for|where|with)\s+(?:all|every|any|each|some)\b(?:(?!\b(?:or|and|but|except)\b).)*"
    r"|(?:(?:for|where|with|and)\s+)?\(?[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\\in(?![a-z])\s*\\mathbb\s*\{?[NZQRC]\}?"
    r"[\^_{}0-9+*>]*\)?"
    r"|(?:(?:for|where|with|and)\s+)?\(?[A-Za-z]\s+(?:is|being) (?:an?|any) (?:arbitrary )?"
    r"(?:non-?negative |positive |real )?(?:integer|constant|number|real|natural number)s?\)?)", re.DOTALL)
_UNIT_AFTER = re.compile(r"(.*(?:[0-9)}]|\\pi))\s+([A-Za-z]{2}[^(){}\\=<>,]*|[mgshL])", re.DOTALL)
_CHOICE = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+)?\(?([A-J])(?:\s*[).:](?:\s.*)?|\)(?:.*)?)?", re.DOTALL)
_OTHER_CHOICE = re.compile(r"(?:^|[\s,;/(])(?:or|and|&)?\s*\(?([A-J])\s*[).:]|\b(?:or|and)\s+\(?[A-J]\b")
_DECIDED = frozenset(("different_number", "unevaluated_fraction", "empty_answer"))
_RATIO = re.compile(r"([0-9]+(?:\.[0-9]+)?)((?:\s*(?::|to)\s*[0-9]+(?:\.[0-9]+)?)+)")


@dataclass(frozen=True)
class Match:
    """Whether two answers are equal, and the snake_case name of the comparison that decided it."""

    equal: bool
    reason: str


def compare(gold: str, answer: str, question: str = "") -> Match:
    """Compare an answer with the gold answer, both as written. Raises nothing on any text.

    Args:
        gold: The gold answer.
        answer: The answer, without the sentence around it.
        question: What was asked; without it, nothing that only the question could decide is accepted.
    """
    if gold == answer:
        return Match(True, "same_text")
    if len(answer) > MAX_ANSWER or len(gold) > MAX_ANSWER:
        return Match(False, "over_budget")
    try:
        return Comparer(question).whole(clean(gold), clean(answer))
    except (TooComplex, RecursionError):
        return Match(False, "over_budget")
    except Unreadable:  # such as a division by zero that only working it out brings to light
        return Match(False, "unreadable")


class Comparer:
    """One comparison of two answers: the question, and how much work is left."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.work = MAX_WORK

    def whole(self, gold: str, answer: str) -> Match:
        """The whole cleaned answers."""
        gold, counted = annotation_of(_without_frame(gold))
        answer, base = annotation_of(_without_frame(answer))
        if base.casefold() in _BASES and not counted:
            return Match(False, "base")
        if counted and answer.casefold().endswith(f" {counted.casefold()}"):
            answer = answer[: -len(counted)].rstrip()
        match = self.compare(gold, answer, 0)
        if match.equal or match.reason in _DECIDED:
            return match
        for other in (self._alternatives, self._approximately_said, self._renamed, self._residues, self._by_question):
            found = other(gold, answer)
            if found is not None:
                return found
        return match

    def compare(self, gold: str, answer: str, depth: int) -> Match:
        """Two parts of answers, cleaned."""
        self.spend(1)
        if depth > MAX_NESTING:
            raise TooComplex("nested too deep")
        if not answer:
            return Match(False, "empty_answer")
        numbers = self._numbers(gold, answer, depth)
        if numbers is not None:
            return numbers
        if same_text(gold, answer):
            return Match(True, "same_text")
        bare_gold, bare_answer = forms.unassigned(gold), forms.unassigned(answer)
        if (bare_gold, bare_answer) != (gold, answer) and forms.same_side(gold, bare_gold, answer, bare_answer):
            return self.compare(bare_gold, bare_answer, depth + 1)
        number = _number(gold)
        if number is not None and (not ("," in gold and "," in answer) or _THOUSANDS.search(gold)):
            return self._closed_form(gold, number, answer)
        for comparison in (_times, self._ratios, _choices):
            found = comparison(gold, answer)
            if found is not None:
                return found
        for form in forms.COMPARISONS:
            decided = form(self, gold, answer, depth)
            if decided is not None:
                return Match(*decided)
        return self._expressions(gold, answer)

    def same_value(self, gold: Tree, answer: Tree) -> bool:
        """Whether two trees have the same value; dots are written out first."""
        self.spend(size(gold) + size(answer))
        if has_dots(gold) or has_dots(answer):
            gold, answer = written_out(gold, answer)
        return same_value(gold, answer)

    def proportional(self, gold: Tree, answer: Tree, positive: bool = False) -> bool:
        """Whether two trees are the same function up to a constant factor."""
        self.spend(2 * (size(gold) + size(answer)))
        return proportional(gold, answer, positive)

    def same_collection(self, gold: list[str], answer: list[str], depth: int) -> bool:
        """Equal as collections without order, repeats counted."""
        if len(gold) != len(answer):
            return False
        rest = list(answer)
        for part in gold:
            found = next((other for other in rest if self.compare(part, other, depth + 1).equal), None)
            if found is None:
                return False
            rest.remove(found)
        return True

    def all_equal(self, gold: list[str], answer: list[str], depth: int) -> bool:
        """Equal one by one."""
        return len(gold) == len(answer) and all(
            self.compare(ours, theirs, depth + 1).equal for ours, theirs in zip(gold, answer, strict=True))

    def spend(self, amount: int) -> None:
        """Count work. Raises TooComplex when there is none left."""
        self.work -= amount
        if self.work < 0:
            raise TooComplex("too much to compare")

    def _numbers(self, gold: str, answer: str, depth: int) -> Match | None:
        """A verdict where both are plain numbers; None where the question is open."""
        gold_number = _number(gold)
        if gold_number is None:
            return None
        bracket, inner = opened(answer)
        if bracket not in ("()", "{}") and (bracket != "\\{\\}" or depth):  # in a set, {2} is no number
            inner = answer
        answer_number = _number(inner) or _glued(inner, gold_number)
        if answer_number is None:
            return None
        if not equal_numbers(gold_number, answer_number):
            return self._unequal(gold, gold_number, inner, answer_number)
        if gold_number.value.denominator == 1 and _is_fraction(answer) and not _is_fraction(gold) \
                and not gold_number.unit and not gold_number.percent:
            return Match(False, "unevaluated_fraction")
        return Match(True, "same_number")

    def _unequal(self, gold: str, gold_number: Number, answer: str, answer_number: Number) -> Match:
        """What the question may still allow, for two numbers that differ."""
        ours, theirs = gold_number.value, answer_number.value
        if gold_number.percent != answer_number.percent and not gold_number.unit and not answer_number.unit:
            if (ours * 100 if gold_number.percent else ours) == (theirs * 100 if answer_number.percent else theirs) \
                    and asks_percent(self.question):
                return Match(True, "percentage_asked")
        elif gold_number.unit.startswith("base ") and not answer_number.unit:
            if ours == theirs and asks_base(self.question):
                return Match(True, "base_asked")
        elif "." in gold and (not (gold_number.unit and answer_number.unit) or gold_number.unit == answer_number.unit):
            if rounds_to(gold, gold_number, answer, theirs):
                return Match(True, "rounds_to_gold")
            if close_enough(gold, gold_number, answer, answer_number, self.question):
                return Match(True, "rounding_asked")
        return Match(False, "different_number")

    def _closed_form(self, gold: str, number: Number, answer: str) -> Match:
        """A gold number against what is none: only the form of a rounded value, or radians for degrees, will do."""
        refused = Match(False, "not_a_number" if not any(map(str.isdigit, answer)) else "unevaluated_or_other")
        if number.unit in ("degree", "degrees") and "\\pi" in answer and "degree" not in answer:
            tree = _tree(answer)
            gold_tree = ("multiply", ("number", number.value), DEGREE)
            return Match(True, "radians") if tree is not None and self.same_value(gold_tree, tree) else refused
        if "." not in gold:
            return refused
        tree = _tree(without_unit(answer)[0])
        if tree is None or names_of(tree) or has_dots(tree):
            return refused
        self.spend(size(tree))
        return Match(True, "rounds_to_gold") if rounds_to(gold, number, answer, tree) else refused

    def _expressions(self, gold: str, answer: str) -> Match:
        (bare_gold, gold_unit), (bare_answer, answer_unit) = without_unit(gold), without_unit(answer)
        gold_tree, answer_tree = _tree(bare_gold), _tree(bare_answer)
        if gold_tree is None or answer_tree is None:
            return Match(False, "different_text")
        try:
            if gold_unit and answer_unit and gold_unit != answer_unit:
                from_1 = converted(_ONE, answer_unit, gold_unit)
                if from_1 is None:
                    return Match(False, "different_unit")
                answer_tree = ("multiply", answer_tree, ("number", from_1))
            if self.same_value(gold_tree, answer_tree):
                return Match(True, "expression")
            if "degree" in gold_unit + answer_unit:  # 120 degrees for 2 pi / 3
                whole_gold, whole_answer = _tree(gold), _tree(answer)
                if whole_gold is not None and whole_answer is not None and self.same_value(whole_gold, whole_answer):
                    return Match(True, "degrees")
        except TooComplex:
            raise
        except Unreadable:
            return Match(False, "unreadable")
        return Match(False, "expression")

    def _ratios(self, gold: str, answer: str) -> Match | None:
        """`5:8` against a ratio or a fraction; a time of day needs the question's word that it is a ratio."""
        match = _RATIO.fullmatch(gold)
        if match is None or (read_time(gold) is not None and not asks_ratio(self.question)):
            return None
        ours = _terms(gold)
        theirs = _terms(answer) if _RATIO.fullmatch(answer) else None
        if theirs is None:
            number = read_number(answer)
            if number is None or number.unit or len(ours) != 2 or not ours[1]:
                return Match(False, "ratio")
            return Match(number.value == ours[0] / ours[1], "ratio")
        if len(ours) != len(theirs) or not any(theirs):
            return Match(False, "ratio")
        return Match(all(a * theirs[0] == b * ours[0] and bool(a) == bool(b)
                         for a, b in zip(ours, theirs, strict=True)), "ratio")

    def _alternatives(self, gold: str, answer: str) -> Match | None:
        """One number said twice (`0.56 = 56\\%`): a gold answer is met by either, an answer must be right in each."""
        ours, theirs = ([side.strip() for side in RELATION.split(text)] for text in (gold, answer))
        if len(ours) == len(theirs) == 1 or max(len(ours), len(theirs)) > 3 or RELATION.sub("", gold + answer) == "":
            return None
        chains = [text for text, sides in ((gold, ours), (answer, theirs)) if len(sides) > 1]
        if any("=" not in text and "\\approx" not in text for text in chains):
            return None
        if not all(_number(side) is not None for side in ours + theirs):
            return None
        met = all(any(self.compare(side, said, 1).equal for side in ours) for said in theirs)
        return Match(True, "said_twice") if met else None

    def _approximately_said(self, gold: str, answer: str) -> Match | None:
        """An answer that adds its own decimal value (`\\frac{1}{3} \\approx 0.33`), if that value is right to 1%."""
        exact, mark, rounded = answer.partition("\\approx")
        number, tree = read_number(rounded.strip()), _tree(without_unit(forms.unassigned(exact.strip()))[0])
        if not mark or number is None or tree is None or names_of(tree) or not number.value:
            return None
        near = ("call", "abs", ("add", ("divide", tree, ("number", number.value)), ("number", -_ONE)))
        if not forms.below(near, _ONE / 100):
            return None
        match = self.compare(gold, exact.strip(), 1)
        return match if match.equal else None

    def _renamed(self, gold: str, answer: str) -> Match | None:
        """The answer with the author's letter for a free parameter."""
        bare_gold, bare_answer = forms.bare(gold), forms.bare(answer)
        letters = renaming(bare_gold, bare_answer, self.question, declared=gold.startswith("(") and bare_gold != gold)
        if letters is None:
            return None
        match = self.compare(bare_gold, with_letter(bare_answer, *letters), 1)
        return Match(True, "parameter") if match.equal else None

    def _residues(self, gold: str, answer: str) -> Match | None:
        ours, theirs = residues(gold), residues(answer)
        if ours is None or theirs is None or not (ours[2] or theirs[2]):
            return None
        return Match(ours[:2] == theirs[:2], "residues")

    def _by_question(self, gold: str, answer: str) -> Match | None:
        """A choice by its text or its letter, or the part of a gold sentence that the question asks for."""
        if not self.question:
            return None
        if completes(gold, answer, self.question):
            return Match(True, "completes_question")
        options = options_of(self.question)
        if gold.strip("()") in options:
            said = [letter for letter, text in options.items() if self.compare(clean(text), answer, 1).equal]
            return Match(said == [gold.strip("()")], "choice")
        choice = _CHOICE.fullmatch(answer)
        if choice is not None and choice[1] in options:
            return Match(self.compare(gold, clean(options[choice[1]]), 1).equal, "choice")
        return None


_BASES = frozenset(("binary", "octal", "hexadecimal", "hex"))
"""Words in brackets after a number that make it another one."""
_ONE = Fraction(1)
_THOUSANDS = re.compile(r",0[0-9]")
"""A comma that parts no list, since no element begins with a 0."""


def _without_frame(text: str) -> str:
    """Without a closing `for all real x`, or a leading `\\approx`."""
    match = _CLAUSE.search(text)
    while match is not None and match.start():
        if match.end() == len(text):
            text = text[: match.start()].rstrip(" ,")
            break
        match = _CLAUSE.search(text, match.end())
    return text[7:].strip() if text.startswith("\\approx") else text


def _number(text: str) -> Number | None:
    number = read_number(text)
    if number is None and text[:1].isalpha():
        value = read_words(text)
        return None if value is None else Number(value)
    return number


def _glued(answer: str, gold: Number) -> Number | None:
    """`5m` where the gold number has a unit: then the letters at the numeral are one as well."""
    if not gold.unit or gold.unit.startswith("base "):
        return None
    match = re.fullmatch(r"([-+]?[0-9][0-9.,]*)([A-Za-z].*)", answer)
    return read_number(f"{match[1]} {match[2]}") if match is not None else None


def _is_fraction(text: str) -> bool:
    return "\\frac" in text or bool(re.search(r"[0-9]\s*/\s*[0-9]", text))


def _times(gold: str, answer: str) -> Match | None:
    ours = read_time(gold)
    if ours is None:
        return None
    theirs = read_time(answer)
    return None if theirs is None else Match(not ours.isdisjoint(theirs), "time")


def _choices(gold: str, answer: str) -> Match | None:
    """A choice letter against a letter with or without its text."""
    letter = gold.strip("()")
    if len(letter) != 1 or letter not in "ABCDEFGHIJ" or len(answer) < 2:
        return None
    match = _CHOICE.fullmatch(answer)
    if match is None or _OTHER_CHOICE.search(answer, match.end(1) + 1):
        return None
    return Match(match[1] == letter, "choice")


def _terms(text: str) -> list[Fraction]:
    return [Fraction(part.strip()) for part in re.split(r":|to", text)]


def _tree(text: str) -> Tree | None:
    try:
        return parse(text)
    except TooComplex:
        raise
    except Unreadable:
        return None


def without_unit(text: str) -> tuple[str, str]:
    """An expression and the unit in words that follows it, `` where there is none."""
    match = _UNIT_AFTER.fullmatch(text)
    unit = read_unit(match[2], glued=False) if match is not None else None
    return (match[1], unit) if match is not None and unit is not None else (text, "")
