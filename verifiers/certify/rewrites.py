"""Rewrites that leave a completion's meaning as it is, so that its verdict must stay: spacing, words around, spellings.

Which rewrites a verifier must stand is read from its cases. A verifier to which spaces matter has a near miss that is a
gold case but for its spaces; from then on no rewrite of that kind is held against it for that task. Programs have
rewrites of their own (`program_rewrites`).

A rewrite is a function from a completion to its rewritten form, or to None where it does not apply. `same` folds a text
so that two texts that differ only by this kind of rewrite become equal.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from verifiers.cases import Case
from verifiers.certify import program_rewrites, texts

BEFORE = "Let us see what is asked.\n\n"
AFTER = "\n\nThat completes the solution."
_WORD = re.compile(r"[A-Za-z][A-Za-z ]*[A-Za-z]")


@dataclass(frozen=True)
class Rewrite:
    """One way to say the same.

    Attributes:
        name: What it does, for people.
        apply: The rewritten completion, or None.
        alike: Whether a near miss shows that this rewrite changes the verdict of a gold completion.
        adds_text: It adds words, marks or lines. Where no gold answer but a rule about the text itself judges, that may
            rightly change the verdict, and so it is only tried on programs.
    """

    name: str
    apply: Callable[[str], str | None]
    alike: Callable[[str, str], bool]
    adds_text: bool = False

    def of(self, case: Case) -> str | None:
        """The case's completion rewritten; None where that does not apply or changes nothing."""
        if self.adds_text and not case.task.answer.strip() and texts.program(case.completion) is None:
            return None
        completion = self.apply(case.completion)
        return None if completion == case.completion else completion

    def forbidden_by(self, gold: Case, near_misses: list[Case]) -> Case | None:
        """The author's near miss that says that this rewrite of this gold case is another answer."""
        for case in near_misses:
            if same_task(case, gold) and self.alike(gold.completion, case.completion):
                return case
        return None


def same_task(one: Case, other: Case) -> bool:
    """Whether two cases ask the same."""
    return (one.task.prompt, one.task.answer, dict(one.task.metadata)) == (
        other.task.prompt,
        other.task.answer,
        dict(other.task.metadata),
    )


def blank_lines_around(completion: str) -> str:
    """Empty lines before and after."""
    return f"\n{completion}\n\n"


def spaces_at_the_end(completion: str) -> str:
    """What a tokenizer leaves behind."""
    return f"{completion}  \n"


def spaces_in_the_box(completion: str) -> str | None:
    """`\\boxed{ 42 }`."""
    span = texts.boxed(completion)
    return None if span is None else texts.put(completion, span, f" {completion[slice(*span)].strip()} ")


def full_stop(completion: str) -> str | None:
    """A full stop behind the answer."""
    bare = completion.rstrip()
    plain = texts.program(completion) is None and not texts.is_json(completion[texts.answer_start(completion) :])
    several_lines = "\n" in bare.strip() and not texts.is_marked(bare)
    if not plain or several_lines or "```" in bare or bare.rpartition("\n")[2][:1].isspace():
        return None
    return f"{bare}." if bare and (bare[-1].isalnum() or bare[-1] in "}$)") else None


def words_before(completion: str) -> str | None:
    """A sentence before an answer that is marked, behind the thought where there is one."""
    start = texts.answer_start(completion)
    if not texts.is_marked(completion) or not completion[start:].strip():
        return None
    return f"{completion[:start]}{BEFORE}{completion[start:].lstrip(chr(10))}"


def words_after(completion: str) -> str | None:
    """A sentence behind an answer in a box or a fence."""
    rest = completion[texts.answer_start(completion) :]
    if texts.boxed(completion) is None and rest.count("```") < 2:
        return None
    return completion.rstrip() + AFTER


def other_fraction(completion: str) -> str | None:
    """`\\dfrac` for `\\frac`, and the other way round."""
    start = texts.answer_start(completion)
    head, rest = completion[:start], completion[start:]
    if "\\dfrac" in rest:
        return head + rest.replace("\\dfrac", "\\frac")
    return head + rest.replace("\\frac", "\\dfrac") if "\\frac" in rest else None


def sized_brackets(completion: str) -> str | None:
    """`\\left(` and `\\right)` for the brackets in the box."""
    span = texts.boxed(completion)
    content = "" if span is None else completion[slice(*span)]
    if span is None or "(" not in content or content.count("(") != content.count(")") or "\\" in content:
        return None
    return texts.put(completion, span, content.replace("(", "\\left(").replace(")", "\\right)"))


def text_in_the_box(completion: str) -> str | None:
    """`\\text{...}` around words in the box."""
    span = texts.boxed(completion)
    content = "" if span is None else completion[slice(*span)].strip()
    if span is None or not _WORD.fullmatch(content):
        return None
    return texts.put(completion, span, f"\\text{{{content}}}")


def _wrapped(left: str, right: str) -> Callable[[str], str | None]:
    def apply(completion: str) -> str | None:
        span = texts.boxed(completion)
        if span is None:
            return None
        start, end = span[0] - len(texts.BOX), span[1] + 1
        if completion[:start].rstrip().endswith(("$", "\\(", "\\[")):
            return None
        return f"{completion[:start]}{left}{completion[start:end]}{right}{completion[end:]}"

    return apply


def indented_json(completion: str) -> str | None:
    """The same JSON over several lines."""
    start = texts.answer_start(completion)
    rest = completion[start:]
    if not texts.is_json(rest):
        return None
    if folded_spaces(json.dumps(json.loads(rest), ensure_ascii=False)) != folded_spaces(rest):
        return None  # a key that stands twice, a number that is written in another way
    return completion[:start] + json.dumps(json.loads(rest), indent=2, ensure_ascii=False)


def folded_spaces(text: str) -> str:
    """Without white space."""
    return "".join(text.split())


def _by(fold: Callable[[str], str]) -> Callable[[str, str], bool]:
    return lambda gold, near: fold(gold).casefold() == fold(near).casefold()


def _same_program(gold: str, near: str) -> bool:
    spans = [texts.program(each) for each in (gold, near)]
    trees = [
        None if span is None else texts.tree_of(each[slice(*span)])
        for each, span in zip((gold, near), spans, strict=True)
    ]
    return None not in trees and ast.dump(trees[0]) == ast.dump(trees[1])  # type: ignore[arg-type]


def _becomes(apply: Callable[[str], str | None]) -> Callable[[str, str], bool]:
    """Whether the near miss is what the rewrite makes of the gold completion, spaces and case aside."""
    return lambda gold, near: folded_spaces(apply(gold) or gold).casefold() == folded_spaces(near).casefold() != (
        folded_spaces(gold).casefold()
    )


def _behind(gold: str, near: str) -> bool:
    start = texts.answer_start(gold)
    return near != gold and near.rstrip().endswith(gold[start:].strip())


def _before(gold: str, near: str) -> bool:
    return near != gold and near.startswith(gold.rstrip())


_in_dollars, _in_brackets = _wrapped("$", "$"), _wrapped("\\(", "\\)")


def _stop_folded(text: str) -> str:
    return text.rstrip(" .\n")


REWRITES = (
    Rewrite("blank lines around", blank_lines_around, _by(str.strip), adds_text=True),
    Rewrite("spaces at the end", spaces_at_the_end, _by(str.strip), adds_text=True),
    Rewrite("spaces in the box", spaces_in_the_box, _by(folded_spaces)),
    Rewrite("a full stop at the end", full_stop, _by(_stop_folded), adds_text=True),
    Rewrite("words before the answer", words_before, _behind, adds_text=True),
    Rewrite("words after the answer", words_after, _before, adds_text=True),
    Rewrite("\\dfrac and \\frac", other_fraction, _becomes(other_fraction)),
    Rewrite("\\left( and \\right)", sized_brackets, _becomes(sized_brackets)),
    Rewrite("\\text{} in the box", text_in_the_box, _becomes(text_in_the_box)),
    Rewrite("dollar signs around the box", _in_dollars, _becomes(_in_dollars)),
    Rewrite("\\( and \\) around the box", _in_brackets, _becomes(_in_brackets)),
    Rewrite("JSON over several lines", indented_json, _by(folded_spaces)),
    Rewrite("comments in the program", program_rewrites.commented, _same_program),
    Rewrite("the program laid out anew", program_rewrites.laid_out, _same_program),
    Rewrite("other names of local variables", program_rewrites.renamed, _same_program),
)
