"""Gold cases made wrong: another digit, no answer, the other sign, two answers, another gold answer, an empty program.

Each mutation is another answer for sure, as far as text can tell: it acts on the place where the completion states its
answer (`texts.answer`), and on nothing else. Where a mutated completion happens to be right as well, the author lists
it as a case, and the case stands above the rule.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from verifiers.cases import Case
from verifiers.certify import texts

_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\\d?frac\{-?\d+\}\{\d+\}|\d+/\d+)")
_LETTER = re.compile(r"\(?([A-J])\)?")


def mutations(case: Case, others: list[Case]) -> Iterator[tuple[str, Case]]:
    """Wrong variants of a gold case, each with what was done.

    Args:
        case: A gold case.
        others: All gold cases, for their answers.
    """
    gold = case.task.answer.strip()
    if texts.program(case.completion) is not None:
        yield from _programs(case) if gold or case.task.metadata else ()
        return
    span = texts.answer(case) if gold else None  # without a gold answer the form alone is judged
    if span is not None:
        for what, content in _contents(case.completion[slice(*span)]):
            yield what, texts.with_completion(case, texts.put(case.completion, span, content))
    if gold and not case.task.metadata:
        other = _other_gold(case, others)
        if other is not None:
            yield f"the gold answer replaced by {other}", replace(case, task=replace(case.task, answer=other))


def _contents(content: str) -> Iterator[tuple[str, str]]:
    yield "the answer removed", ""
    other = with_other_digit(content) or with_other_letter(content)
    if other is not None:
        yield ("a digit changed" if with_other_digit(content) else "another letter"), other
        yield "two answers", f"{content.strip()} or {other.strip()}"
    if _NUMBER.fullmatch(content.strip()) and not re.fullmatch(r"[-0.,]*", content.strip()):
        bare = content.strip()
        yield "the sign flipped", bare[1:] if bare.startswith("-") else f"-{bare}"


def with_other_digit(text: str) -> str | None:
    """The text with its last digit one up (9 becomes 0); None where there is no digit or the digit is an exponent's.

    >>> with_other_digit("0.50"), with_other_digit("x")
    ('0.51', None)
    """
    places = [place for place, letter in enumerate(text) if letter in "0123456789"]
    if not places or "e" in text.lower() and not texts.is_json(text) and re.search(r"\d[eE]", text):
        return None
    place = places[-1]
    return texts.put(text, (place, place + 1), str((int(text[place]) + 1) % 10))


def with_other_letter(text: str) -> str | None:
    """The next option's letter; None for what is no letter of an option.

    >>> with_other_letter("(B)"), with_other_letter("dog")
    ('(C)', None)
    """
    found = _LETTER.fullmatch(text.strip())
    return None if found is None else text.replace(found[1], "A" if found[1] == "J" else chr(ord(found[1]) + 1))


def _other_gold(case: Case, others: list[Case]) -> str | None:
    gold = case.task.answer.strip()
    changed = with_other_digit(gold) or with_other_letter(gold)
    if changed is not None:
        return changed
    for other in others:
        answer = other.task.answer.strip()
        if answer and answer.casefold() not in (gold.casefold(), case.completion.casefold()):
            if answer.casefold() in case.completion.casefold() or gold.casefold() in answer.casefold():
                continue  # one of them may be another spelling of the other
            if not other.task.metadata and other.task.prompt == case.task.prompt == "":
                return answer
    return None


def _programs(case: Case) -> Iterator[tuple[str, Case]]:
    span = texts.program(case.completion)
    assert span is not None
    source = case.completion[slice(*span)]
    for what, new in (
        ("the program removed", ""),
        ("a program that ends at once", f"raise SystemExit(0)\n{source}"),
        ("a program that returns and prints nothing", _mute(source)),
    ):
        if new is not None:
            yield what, texts.with_completion(case, texts.put(case.completion, span, new))


def _mute(source: str) -> str | None:
    tree = texts.tree_of(source)
    if tree is None:
        return None

    class Mute(ast.NodeTransformer):
        """Returns without a value, prints without text, lambdas that give None."""

        def visit_Return(self, node: ast.Return) -> ast.Return:
            return ast.copy_location(ast.Return(ast.Constant(None)), node)

        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            if isinstance(node.func, ast.Name) and node.func.id == "print":
                return ast.copy_location(ast.Call(node.func, [], []), node)
            return node

        def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
            return ast.copy_location(ast.Lambda(node.args, ast.Constant(None)), node)

    muted = ast.unparse(ast.fix_missing_locations(Mute().visit(tree)))
    return muted if muted != ast.unparse(ast.parse(source)) else None
