"""Where the answer stands in a completion.

Order of precedence, each at its last occurrence: `\\boxed{...}`; then whichever comes last of `#### ...`,
`<answer>...</answer>`, "final answer is ...", "answer: ...", "A: ..."; then the last line. A box that is empty counts
as the answer (which is then empty); a box that is cut off does not count, the last whole one does.

When `</think>` occurs and text follows it, only what follows the last one is read.

What this does not do: it does not judge and it does not simplify. It reads at most the last `MAX_TAIL` characters for
anything but a box, so that its time is linear in the completion with a small factor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MAX_TAIL = 20_000
"""Characters at the end in which markers are looked for."""

Kind = Literal["boxed", "marked", "last_line", "last_number", "none"]

_BOX = re.compile(r"\\f?boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_MARKER = re.compile(
    r"(?:^|\n)[ \t]*\#{4}[ \t]*(?P<hashes>[^\n]*)"
    r"|<answer>(?P<tag>(?:(?!</?answer>).)*)</answer>"
    r"|(?:\bfinal\s+answer|\banswer)\s*(?:\*\*|\})?\s*(?:is\b\s*:?|:|=)\s*(?:\*\*)?[ \t]*(?P<phrase>[^\n]*)"
    r"|(?:^|\n)[ \t]*(?:\*\*)?A[ \t]*(?:\*\*)?:(?:\*\*)?[ \t]*(?P<a>[^\n]*)",
    re.IGNORECASE | re.DOTALL,
)
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_GOES_ON = re.compile(r"\s*(?:[-+*/^=,0-9]|or\b|and\b|hundred|thousand|million|billion|%|\\%)")
_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)")
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


def extract(completion: str) -> Extraction:
    """The answer of a completion that should end in a number or an expression."""
    part = final_part(completion)
    found = extract_explicit(part)
    if found is not None:
        return found
    return _from_last_line(part[-MAX_TAIL:])


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


def extract_explicit(part: str) -> Extraction | None:
    """A boxed or otherwise marked answer; None where the text marks none."""
    boxed = last_boxed(part)
    if boxed is not None:
        return Extraction(boxed.strip(), "boxed")
    last = None
    for match in _MARKER.finditer(part[-MAX_TAIL:]):
        last = match
    if last is None:
        return None
    if last["tag"] is not None:
        return Extraction(last["tag"].strip(), "marked")
    text = next(group for group in (last["hashes"], last["phrase"], last["a"]) if group is not None)
    if not text.strip():  # the answer stands on the line below its marker
        text = part[-MAX_TAIL:][last.end():].strip().partition("\n")[0]
    return Extraction(_clip_sentence(text), "marked")


def last_boxed(text: str) -> str | None:
    """Content of the last `\\boxed{...}` (or `\\fbox`) whose braces close; None without one. Linear in the text."""
    openings = [match.end() for match in _BOX.finditer(text)]
    if not openings:
        return None
    starts = set(openings)
    closed: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACES.finditer(text, openings[0] - 1):
        if match.group() == "{":
            stack.append(match.end())
        elif match.group() == "}" and stack:
            opened = stack.pop()
            if opened in starts:
                closed[opened] = match.start()
    if not closed:
        return None
    last = max(closed)
    return text[last: closed[last]]


def _clip_sentence(text: str) -> str:
    """The answer at the head of a sentence: a leading math span alone, else up to the sentence's end."""
    text = text.strip().strip("*").strip()
    span = _MATH_SPAN.match(text)
    if span is not None and not _GOES_ON.match(text, span.end()):
        return next(group for group in span.groups() if group is not None).strip()
    end = _SENTENCE_END.search(text)
    if end is not None:
        text = text[: end.start()]
    return text.strip().rstrip(".,;:").rstrip("*").strip()


def _from_last_line(text: str) -> Extraction:
    """The last line's answer: what follows its last `=`, else its last number, else the line itself if short."""
    line = text.rstrip().rpartition("\n")[2].strip()
    if not line:
        return Extraction(None, "none")
    if "=" in line:
        return Extraction(_clip_sentence(line.rpartition("=")[2]), "last_line")
    clipped = _clip_sentence(line)
    numbers = NUMBER.findall(clipped[-MAX_TAIL:])
    if len(numbers) == 1 and len(clipped) > len(numbers[0]) and " " in clipped:
        return Extraction(numbers[0].strip(), "last_number")
    if len(numbers) > 1 and re.search(r"[A-Za-z]{2}", clipped) and not re.search(r"\bor\b|\\", clipped):
        return Extraction(numbers[-1].strip(), "last_number")
    return Extraction(clipped, "last_line")
