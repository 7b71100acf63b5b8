"""Where the answer stands in a completion.

Order of precedence, each at its last occurrence: `\\boxed{...}`; then whichever comes last of `#### ...`,
`<answer>...</answer>`, "final answer is ...", "answer: ...", "A: ..." and their Chinese forms; then the last line.
A box that is empty counts as the answer (which is then empty); a box that is cut off does not count, the last whole one
does. Boxes with nothing but a comma, `and` or `or` between them are one answer, a list: two values for a question that
asks for one must not pay for the second.

When `</think>` occurs and text follows it, only what follows the last one is read.

What this does not do: it does not judge and it does not simplify. It reads at most the last `MAX_TAIL` characters for
anything but a box, so that its time is linear in the completion with a small factor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from verifiers.answers.clean import unwrap
from verifiers.answers.expression import TooComplex
from verifiers.answers.structure import ASSIGNED, split_list
from verifiers.answers.units import known, read_unit

MAX_TAIL = 20_000
"""Characters at the end in which markers are looked for."""
MAX_FORMULA = 2_000
"""Characters of a formula that begins on the line of its marker and ends on another."""

Kind = Literal["boxed", "marked", "last_line", "last_number", "none"]
WAYS = ("boxed", "marked", "last_line")
"""The ways of finding an answer, in their order."""

_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_JOINT = re.compile(r"\s*(?:\$\$?|\\[)\]])?\s*(?:[,;]|(?:,\s*)?(?:and|or)\b|,?\s*\\text\s*\{\s*(?:and|or)\s*\})\s*"
                    r"(?:\$\$?|\\[(\[])?\s*")
MOST_BETWEEN = 64
"""Characters between two boxes of one list."""
MOST_JOINED = 40
"""Boxes that are read as one list; beyond it the rest of them do not count."""
_LINE = re.compile(r"\n[ \t]*(?:\#{4}|(?:\*\*)?[Aa\u7b54][ \t]*(?:\*\*)?[:\uff1a](?:\*\*)?)[ \t]*")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.IGNORECASE | re.DOTALL)
_PHRASE = re.compile(
    r"(?:\bfinal\s+answer|\banswer|\bcorrect\s+(?:option|choice))\s*(?:\*\*|\})?\s*"
    r"(?:is(?=n['\u2019]t\b)|is\b\s*:?|:|=)\s*(?:\*\*)?[ \t]*",
    re.IGNORECASE)
_CHINESE = re.compile(
    r"\u7b54\u6848\s*(?:\*\*)?\s*(?:\u4e3a|\u662f|[:\uff1a=])+\s*[:\uff1a]?\s*(?:\*\*)?[ \t]*")
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\n\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_GOES_ON = re.compile(r"\s*(?:[-+*/^=,0-9]|or\b|and\b|hundred|thousand|million|billion|%|\\%)")
_UNIT_WORDS = re.compile(r"\s+([A-Za-z]{1,14}(?:\s(?:per\s)?[A-Za-z]{1,14}|/[A-Za-z]{1,14}|\s?\^\s?\{?[23]\}?)?)")
_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)|\u3002")
_LEAD = re.compile(r"(?:exactly|precisely|simply|just|indeed|equal to|given by)\s+(?=[-+$\\(\[{0-9])")
_CLOSING = re.compile(r"(?<!\\)[.,;:][.,;:\s]*\Z")
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!(?:or|and|sin|cos|tan|log|ln|exp|sqrt|pi)\b)[A-Za-z]{2}")
_DENIED = re.compile(r"(?:\bnot|n['\u2019]t)\s+(?:[a-z]+\s+){0,3}[$(]?\Z")
_CHOICE_LINE = re.compile(r"\(?[A-J]\)|\(?[A-J][.)](?:\s|$)")
NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z)])[-+\u2212])?[$\u20ac\u00a3]?(?<![0-9A-Za-z_^])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
    r"(?:[eE][-+]?[0-9]{1,4}(?![0-9A-Za-z]))?(?:\s?/\s?[0-9]+)?(?:\s?\\?%)?"
)
"""A number in running text, with sign, thousands separators, a simple fraction or a percent sign."""


@dataclass(frozen=True)
class Extraction:
    """An answer's text and how it was found; `text` is None where there is none."""

    text: str | None
    kind: Kind


def extract(completion: str, ways: Sequence[str] = WAYS) -> Extraction:
    """The answer of a completion that should end in a number or an expression.

    Args:
        completion: What the model wrote.
        ways: Which of `WAYS` may find the answer; their order of precedence is fixed.
    """
    part = final_part(completion)
    found = extract_explicit(part, ways)
    if found is not None:
        return found
    return _from_last_line(part[-MAX_TAIL:]) if "last_line" in ways else Extraction(None, "none")


def extract_text(completion: str) -> Extraction:
    """The answer of a completion that may be any text: what is boxed or marked, else all of the final part."""
    part = final_part(completion)
    found = extract_explicit(part)
    if found is not None:
        return found
    text = part[-MAX_TAIL:].strip()
    return Extraction(text, "last_line") if text else Extraction(None, "none")


def final_part(completion: str) -> str:
    """What follows the last `</think>`; the whole completion where nothing does."""
    _, tag, rest = completion.rpartition("</think>")
    return rest if tag and rest.strip() else completion


def extract_explicit(part: str, ways: Sequence[str] = WAYS) -> Extraction | None:
    """A boxed or otherwise marked answer; None where the text marks none."""
    boxed = boxed_answer(part) if "boxed" in ways else None
    if boxed is not None:
        return Extraction(boxed, "boxed")
    if "marked" not in ways:
        return None
    tail = "\n" + part[-MAX_TAIL:]
    last = _last_marker(tail)
    if last is None:
        return None
    if last.re is _TAG:
        return Extraction(last[1].strip(), "marked")
    rest = tail[last.end():]
    text = rest.partition("\n")[0]
    if not text.strip():  # the answer stands on the line below its marker
        rest = rest.strip()
        text = rest.partition("\n")[0]
    if text.strip() in ("$", "$$", "\\[", "\\("):  # a formula on lines of its own
        text = " ".join(rest[:MAX_FORMULA].split())
    return Extraction(_clip_sentence(text), "marked")


def _last_marker(tail: str) -> re.Match[str] | None:
    """The marker that stands last; each pattern is only tried where a word of it occurs."""
    lowered = tail.lower()
    patterns = [_LINE]
    if "answer" in lowered or "correct" in lowered:
        patterns += [_PHRASE, _TAG] if "<answer>" in lowered else [_PHRASE]
    if "\u7b54\u6848" in tail:
        patterns.append(_CHINESE)
    last: re.Match[str] | None = None
    for pattern in patterns:
        for match in pattern.finditer(tail):
            if last is None or match.end() > last.end():
                last = match
    return last


def boxed_answer(text: str) -> str | None:
    """What the last box says, with the boxes that it is joined to (`\\boxed{1} and \\boxed{2}`); None without a box."""
    boxes = _closed_boxes(text)
    if not boxes:
        return None
    start, opened, closed = max(boxes)
    answer = text[opened:closed].strip()
    if len(boxes) == 1 or not answer:
        return answer
    said = [answer]
    for before, opened, closed in sorted(boxes, reverse=True)[1:MOST_JOINED]:
        between = start - closed - 1
        if between < 0 or between > MOST_BETWEEN or not _JOINT.fullmatch(text, closed + 1, start):
            break
        start = before
        other = text[opened:closed].strip()
        if other not in said:
            said.append(other)
    return ", ".join(reversed(said))


def last_boxed(text: str) -> str | None:
    """Content of the last `\\boxed{...}` (or `\\fbox`) whose braces close; None without one. Linear in the text."""
    boxes = _closed_boxes(text)
    if not boxes:
        return None
    _, opened, closed = max(boxes)
    return text[opened:closed]


def _closed_boxes(text: str) -> list[tuple[int, int, int]]:
    """Where each box whose braces close begins, and where its content begins and ends."""
    if "boxed" not in text and "\\fbox" not in text:
        return []
    openings = {match.end(): match.start() for match in _BOX.finditer(text)}
    if not openings:
        return []
    closed: list[tuple[int, int, int]] = []
    stack: list[int] = []
    for match in _BRACES.finditer(text, min(openings) - 1):
        if match.group() == "{":
            stack.append(match.end())
        elif match.group() == "}" and stack:
            opened = stack.pop()
            if opened in openings:
                closed.append((openings[opened], opened, match.start()))
    return closed


def _clip_sentence(text: str) -> str:
    """The answer at the head of a sentence: a leading math span alone, else up to the sentence's end."""
    text = text.strip().strip("*").strip()
    lead = _LEAD.match(text)
    if lead is not None:
        text = text[lead.end():]
    span = _MATH_SPAN.match(text)
    if span is not None and not _GOES_ON.match(text, span.end()):
        inner = next(group for group in span.groups() if group is not None).strip()
        unit = _UNIT_WORDS.match(text, span.end())
        return f"{inner} {unit[1]}" if unit is not None and _is_measure(unit[1]) else inner
    if _CHOICE_LINE.match(text):
        return text.rstrip().rstrip("*").strip()
    end = _SENTENCE_END.search(text)
    if end is not None:
        text = text[: end.start()]
    return _CLOSING.sub("", text.strip()).rstrip("*").strip()


def _from_last_line(text: str) -> Extraction:
    """The last line's answer: what follows its last `=`, else its last number, else the line itself if short."""
    line = text.rstrip().rpartition("\n")[2].strip()
    if not line:
        return Extraction(None, "none")
    prose = _PROSE.search(line) is not None
    if "=" in line:
        line = unwrap(line.rstrip(" ."))
        whole = not prose or "\\" in line or len(line) == len(text.strip())
        if whole and _only_assigns(line):
            return Extraction(line.rstrip(".,;").strip(), "last_line")
        return Extraction(_clip_sentence(line.rpartition("=")[2]), "last_line")
    clipped = _clip_sentence(line)
    if not prose or "\\" in clipped:
        return Extraction(clipped, "last_line")
    numbers = list(NUMBER.finditer(clipped[-MAX_TAIL:]))
    alone = len(numbers) == 1 and len(clipped) > len(numbers[0][0]) and " " in clipped
    several = len(numbers) > 1 and not re.search(r"\bor\b", clipped) and ":" not in clipped
    if (alone or several) and not _DENIED.search(clipped[-MAX_TAIL:], 0, numbers[-1].start()):
        return Extraction(_with_unit(clipped[-MAX_TAIL:], numbers[-1]), "last_number")
    return Extraction(clipped, "last_line")


def _with_unit(text: str, number: re.Match[str]) -> str:
    """A number with the measure that follows it, since 5 cm is not 5 m."""
    unit = _UNIT_WORDS.match(text, number.end())
    if unit is not None:
        for words in (unit[1], unit[1].partition(" ")[0]):
            if _is_measure(words):
                return f"{number[0].strip()} {words}"
    return number[0].strip()


def _is_measure(words: str) -> bool:
    unit = read_unit(words, glued=False)
    return unit is not None and len(words) > 1 and words not in ("in", "am") and known(unit)


def _only_assigns(line: str) -> bool:
    """Whether the line is nothing but names with what they are, such as `f(x) = 2x` or `Minimum = 1, Maximum = 3`."""
    if len(line) > 600:
        return False
    try:
        parts = split_list(line.strip("$ ."))
    except TooComplex:
        return False
    return bool(parts) and all(part.count("=") <= 1 and (ASSIGNED.match(part) if "=" in part else part is not parts[0])
                               for part in parts)
