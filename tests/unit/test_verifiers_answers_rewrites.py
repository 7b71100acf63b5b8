"""Gold answers, each against itself and five rewrites that say the same.

The rewrites are made by rule, from the text or from what the text is read as, so that none is chosen for its success.
The gold answers of the public data sets come from the mirror (`$DERIVE_DATA`).
"""

import json
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from verifiers.answers.clean import clean
from verifiers.answers.equivalence import compare
from verifiers.answers.expression import Tree, Unreadable, parse
from verifiers.answers.numbers import annotation_of, read_number
from verifiers.answers.reading import reads_as
from verifiers.answers.structure import opened, split_list
from verifiers.api import Task
from verifiers.math import MathVerifier, gold_answer

MIRROR = os.environ.get("DERIVE_DATA")
INVENTED = [
    "18", "-7", "1,250", "0.75", "\\frac{7}{3}", "2\\frac{1}{4}", "35\\%", "\\$4.50", "12 \\text{ cm}", "60^\\circ",
    "3\\sqrt{5}", "\\frac{\\sqrt{3}+1}{2}", "4\\pi - 1", "\\log_2 7", "5e^{-2}", "2x^2-3x+1", "\\frac{a+b}{c}", "3-4i",
    "(2,-3)", "\\left(\\frac{1}{2}, \\sqrt{2}\\right)", "1, 3, 7", "\\{2, 4\\}", "[0,5)",
    "(-\\infty,2]\\cup(3,\\infty)",
    "x=4", "y=3x-2", "x+2y-7=0", "x>3", "2\\pm\\sqrt{3}", "\\begin{pmatrix} 1 & -2 \\\\ 0 & 5 \\end{pmatrix}", "3:7",
    "6:40 \\text{ p.m.}", "\\text{Thursday}", "213_5", "10^{12}", "7 (apples)", "\\text{(C)}",
    "480\\sqrt{3}\\text{ feet}",
]
_UNICODE = {"\\pi": "\u03c0", "\\infty": "\u221e", "\\cup": "\u222a", "^\\circ": "\u00b0", "-": "\u2212",
            "\\le ": "\u2264", "\\cdot": "\u00b7", "\\times": "\u00d7", "\\pm": "\u00b1"}


def display(gold: str) -> str:
    """Display fractions, stretched brackets, thin spaces."""
    text = re.sub(r"\\[dt]?frac(?![a-z])", r"\\dfrac", gold)
    if "\\left" not in text and "\\{" not in text:
        text = text.replace("(", "\\left(").replace(")", "\\right)").replace("[", "\\left[").replace("]", "\\right]")
    return text if "{,}" in text else re.sub(r",(?!\d{3}(?!\d))(?!\\!)\s*", r",\\, ", text)


def unicode_signs(gold: str) -> str:
    """Unicode characters in place of commands."""
    for command, sign in _UNICODE.items():
        gold = re.sub(re.escape(command) + r"(?![A-Za-z])", sign, gold)
    return gold


def stated(gold: str) -> str:
    """What a solution would say at its end: an assignment, else the other side first, else as text."""
    kind = reads_as(gold)
    if kind in ("number", "expression", "matrix") and "=" not in gold and "approx" not in gold:
        return f"w = {gold}"
    if gold.count("=") == 1 and kind == "relation" and "," not in gold:
        left, right = gold.split("=")
        return f"{right.strip()} = {left.strip()}"
    return f"\\text{{{gold}}}" if kind == "words" and "\\" not in gold else f"  {gold} ."


def revalued(gold: str) -> str:
    """The same value in another form: other digits, other order of terms, other order of a list."""
    text = annotation_of(clean(gold))[0]
    number = read_number(text)
    if number is not None and not number.unit.startswith("base"):
        return _other_number(number.value, gold)
    bracket, inner = opened(text)
    parts = split_list(inner)
    if len(parts) < 2:
        try:
            return plain(parse(text))
        except Unreadable:
            pass
    if len(parts) > 1 and bracket in ("", "\\{\\}") and not re.search(r"\\cup|[=<>]|\\[lg]e", text):
        return f"\\{{{', '.join(reversed(parts))}\\}}"
    if bracket == "()" and len(parts) > 1 and "infty" not in text:
        return f"({', '.join(revalued(part).replace(',', '') for part in parts)})"
    if "pmatrix" in text:
        return text.replace("pmatrix", "bmatrix")
    if re.fullmatch(r".+\\cup.+", text):
        return " \\cup ".join(part.strip() for part in reversed(text.split("\\cup")))
    return gold.replace(" ", "  ")


def _other_number(value: Fraction, gold: str) -> str:
    if value.denominator == 1:
        return f"{value.numerator:,}.00"
    if "." in gold:
        return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return f"{3 * value.numerator}/{3 * value.denominator}"


def plain(tree: Tree) -> str:
    """The expression in plain text, fully bracketed, sums and products the other way round."""
    kind = tree[0]
    if kind == "number":
        return f"({tree[1]})" if tree[1].denominator != 1 else str(tree[1])
    if kind == "name":
        return {"pi": "\\pi"}.get(tree[1], tree[1] if len(tree[1]) < 2 or "_" in tree[1] or tree[1].isupper()
                                  else _command(tree[1]))
    if kind == "add":
        return f"({plain(tree[2])} + {plain(tree[1])})"
    if kind == "multiply":
        return f"({plain(tree[2])} * {plain(tree[1])})"
    if kind == "divide":
        return f"({plain(tree[1])})/({plain(tree[2])})"
    if kind == "power":
        return f"({plain(tree[1])})^{{{plain(tree[2])}}}"
    if kind == "negate":
        return f"(-{plain(tree[1])})"
    if kind == "factorial":
        return f"({plain(tree[1])})!"
    if kind == "absolute":
        return f"|{plain(tree[1])}|"
    if kind == "call":
        names = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
        if tree[1] == "sqrt":
            return f"\\sqrt{{{plain(tree[2])}}}"
        return f"\\{names.get(tree[1], tree[1])}({plain(tree[2])})"
    if kind == "log":
        return f"\\log_{{{plain(tree[1])}}}({plain(tree[2])})"
    if kind == "binomial":
        return f"\\binom{{{plain(tree[1])}}}{{{plain(tree[2])}}}"
    raise Unreadable(kind)


def _command(name: str) -> str:
    head, _, rest = name.partition(" ")
    return f"\\{head} {rest}" if rest.isalpha() else f"\\{head}{rest}"


REWRITES = [
    ("display", lambda gold: f"\\boxed{{{display(gold)}}}"),
    ("unicode", lambda gold: f"So we get \\boxed{{{unicode_signs(gold)}}}."),
    ("stated", lambda gold: f"\\boxed{{{stated(gold)}}}"),
    ("revalued", lambda gold: f"\\boxed{{{revalued(gold)}}}"),
    ("sentence", lambda gold: f"So it must be.\nThe final answer is ${gold}$."),
]


def failures(golds: list[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    """(gold, rewrite, completion, reason) for each rewrite that is not taken for its gold answer."""
    verifier, missed = MathVerifier(), []
    for question, gold in golds:
        if not compare(gold, f" {gold} ", question).equal:
            missed.append((gold, "itself", gold, "itself"))
        for name, rewrite in REWRITES:
            completion = rewrite(gold)
            verdict = verifier.judge(Task("t", question, gold), completion)
            if verdict.score < 1:
                missed.append((gold, name, completion, verdict.reason))
    return missed


def mirrored() -> Iterator[tuple[str, str]]:
    """Question and gold answer of every row that has both."""
    folder = Path(str(MIRROR))
    for row in json.loads((folder / "math/math_train.json").read_text()):
        yield row["problem"], row["answer"]
    for row in json.loads((folder / "math/math500.json").read_text()):
        yield row["prompt"][0]["value"], row["final_answer"]
    for name in ("gsm8k/train", "gsm8k/test", "aime/aime24", "aime/aime25", "asdiv/test"):
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            question = row.get("question") or row.get("prompt")
            yield f"{row['body']} {question}" if "body" in row else question, gold_answer(str(row["answer"]))


@pytest.mark.parametrize("gold", INVENTED)
def test_a_gold_answer_equals_itself_and_its_rewrites(gold: str) -> None:
    assert failures([("", gold)]) == []
    assert reads_as(gold) != "unreadable"


@pytest.mark.skipif(not MIRROR, reason="DERIVE_DATA is not set: no mirror of the public data sets")
def test_a_sample_of_public_gold_answers_equal_their_rewrites() -> None:
    golds = [pair for pair in mirrored() if pair[1]][::37]
    assert len(golds) > 400
    assert failures(golds) == []


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="DERIVE_DATA is not set: no mirror of the public data sets")
def test_all_public_gold_answers_are_read_and_equal_their_rewrites() -> None:
    golds = [pair for pair in mirrored() if pair[1]]
    assert len(golds) > 15_000
    assert {gold for _, gold in golds if reads_as(gold) == "unreadable"} == set()
    assert failures(golds) == []
