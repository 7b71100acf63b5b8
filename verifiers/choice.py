"""The multiple-choice verifier: correct if the completion chooses the gold letter, or exactly the gold letters.

The gold answer is a letter (`B`, `(B)`), several (`A, C`), or the text of an option. The options are those of
`metadata.choices` (a list of texts, or an object from letters to texts); without them, those that the prompt lists one
a line (`A) ...`, `(A) ...`, `A. ...`); else any letter from A to J.

The choice is read from what follows the thinking, from the first of these that is there, each at its last occurrence:
`\\boxed{...}`; what follows "answer is", "answer:", "choice is" or their Chinese forms; the last line, if it is a
choice and nothing else, or names just one (`so (B) is right`). Letters may stand in brackets, in bold or with the
option's text behind them; an option's text alone counts as its letter. "A or B" chooses both, which is wrong where one
is gold; a letter with the text of another option is wrong.

What this does not do: it follows no argument in prose ("not A, so the other one"), and `a` in a sentence is an article.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from verifiers.answers.extract import final_part, last_boxed
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict

LETTERS = "ABCDEFGHIJ"
MAX_COMPLETION = 4_000_000
"""Characters of a completion; beyond it nothing is read."""
MAX_TAIL = 20_000
"""Characters at the end in which a marked answer and the last line are looked for."""
SHOWN = 200

_SEPARATOR = r"(?:\s*(?:,|;|/|&|\bor\b|\band\b)\s*(?:(?:or|and)\b\s*)?)"
_LETTER = r"[(\[]?[A-J][)\]]?(?![\w'\u2019])"
_LETTERS = re.compile(rf"(?:(?:both|option|choice|answer)\s+)?{_LETTER}(?:{_SEPARATOR}{_LETTER})*", re.IGNORECASE)
_LOWER = re.compile(r"[(\[]?([a-j])[)\].]?")
_JOINED = re.compile(r"[A-J]{2,10}")
_MARKER = re.compile(
    r"(?:\b(?:answers?|choices?|options?)\s*(?:is\b|are\b|:|=)+\s*:?|\u7b54\u6848\s*(?:\u662f|\u4e3a|\uff1a|:)*)\s*",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^[ \t]*[(\[]?([A-J])[)\].:][ \t]+(\S[^\n]*)$", re.MULTILINE)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textrm)\s*\{([^{}]*)\}")
_BRACKETED = re.compile(r"[(\[]([A-J])[)\]]|\b(?:option|choice)\s+([A-J])\b|(?<![\w'\u2019])([B-HJ])(?![\w'\u2019])")
_SPACES = re.compile(r"\s+")
_ARTICLE = re.compile(r"[AI]\s+(?!because\b|since\b|as\b|for\b|which\b|or\b|and\b)[a-z]")


class ChoiceVerifier:
    """Correct if the chosen letters are the gold ones."""

    name = "choice"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the option that it chooses."""
        options = _options(task)
        if options is None:
            return no_verdict("choices_unreadable")
        gold = _read(task.answer, options)
        if not gold:
            return no_verdict("empty_gold" if not task.answer.strip() else "gold_is_no_choice")
        if len(completion) > MAX_COMPLETION:
            return incorrect(OVER_BUDGET)
        text, kind = _answer(completion)
        if not text:
            return incorrect("no_answer")
        shown = text[:SHOWN]
        chosen = _named(text, options) if kind == "last_line" else _read(text, options)
        if chosen is None:
            return incorrect(f"no_choice_{kind}", shown)
        if not chosen:
            return incorrect("letter_and_text_differ", shown)
        if chosen == gold:
            return correct(shown, f"same_choice_{kind}")
        return incorrect(("several_choices" if len(chosen) > len(gold) else "other_choice") + f"_{kind}", shown)


def _options(task: Task) -> dict[str, str] | None:
    """Letters with their texts (empty texts where only the letters are known); None for what cannot be read."""
    given = task.metadata.get("choices")
    if isinstance(given, Mapping):
        if not all(isinstance(key, str) and key in LETTERS and len(key) == 1 for key in given):
            return None
        return {key: _plain(str(text)) for key, text in given.items()} or None
    if isinstance(given, (list, tuple)):
        if not 0 < len(given) <= len(LETTERS):
            return None
        return {letter: _plain(str(text)) for letter, text in zip(LETTERS, given, strict=False)}
    if given is not None:
        return None
    listed = {letter: _plain(text) for letter, text in _LISTED.findall(task.prompt)}
    return listed if len(listed) > 1 else dict.fromkeys(LETTERS, "")


def _answer(completion: str) -> tuple[str, str]:
    """The text that holds the choice, and how it was found."""
    part = final_part(completion)
    boxed = last_boxed(part)
    if boxed is not None:
        return _plain(boxed), "boxed"
    tail = part[-MAX_TAIL:]
    ends = [match.end() for match in _MARKER.finditer(tail)]
    marked = _plain(tail[ends[-1] :].partition("\n")[0]) if ends else ""
    if marked:
        return marked, "marked"
    return _plain(tail.rstrip().rpartition("\n")[2]), "last_line"


def _read(text: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """Letters that a text chooses; empty where letter and text contradict each other, None where it chooses none."""
    text = _plain(text)
    same = [letter for letter, option in options.items() if option and option.casefold() == text.casefold()]
    if len(same) == 1:
        return frozenset(same)
    lower = _LOWER.fullmatch(text)
    if lower is not None:
        return _known([lower[1].upper()], options)
    if _JOINED.fullmatch(text) and len(set(text)) == len(text):
        return _known(list(text), options)
    head = _LETTERS.match(text)
    if head is None or not any(map(str.isupper, re.findall(r"\b[A-Ja-j]\b", head[0]))) or _ARTICLE.match(text):
        return None
    letters = re.findall(r"(?<![A-Za-z])[A-Ja-j](?![A-Za-z])", head[0])
    rest = text[head.end() :].lstrip(" .):]-\u2013\u2014").rstrip(" .").casefold()
    if len(letters) == 1 and rest:
        of_rest = [letter for letter, option in options.items() if option and option.casefold().rstrip(" .") == rest]
        if of_rest and letters[0].upper() not in of_rest:
            return frozenset()
    return _known([letter.upper() for letter in letters], options)


def _named(line: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """Letters that a last line chooses: as a choice alone, else the only one that it names."""
    bare = line.rstrip(" .")
    if _LETTERS.fullmatch(bare) or _LOWER.fullmatch(bare) or re.match(r"[(\[]?[A-J][)\].:]", line):
        return _read(line, options)
    if any(option and option.casefold() == bare.casefold() for option in options.values()):
        return _read(bare, options)
    if re.search(r"\b(?:not|isn't|neither|nor|except)\b", line, re.IGNORECASE):
        return None
    named = [next(filter(None, groups)) for groups in _BRACKETED.findall(line)]
    return _known(named, options) if named else None


def _known(letters: list[str], options: Mapping[str, str]) -> frozenset[str] | None:
    return frozenset(letters) if letters and all(letter in options for letter in letters) else None


def _plain(text: str) -> str:
    """Without typesetting: dollars, bold, back-ticks, `\\text{...}`, doubled spaces and a closing full stop."""
    text = _WRAPPED.sub(r"\1", text).replace("\\(", "").replace("\\)", "")
    text = _SPACES.sub(" ", re.sub(r"[*$`]", "", text)).strip()
    return text.rstrip(".").strip() if not text.endswith("..") else text
