"""The part of a completion that holds its answer, and the fenced blocks in it.

A fence is a line of three or more back-ticks or tildes with an optional label; the block ends at the next line of the
same marks, at least as many, and nothing else (CommonMark, https://spec.commonmark.org/0.31.2/#fenced-code-blocks).
Departure: a fence may be indented by any number of spaces, as in lists.

What this does not do: it does not look inside block quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CLOSING = "</think>"
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([^`\r]*?)[ \t\r]*")


@dataclass(frozen=True)
class Block:
    """A fenced block: its label in lower case (the first word behind the fence), its text, and whether it is closed."""

    label: str
    text: str
    closed: bool


def answer_part(completion: str) -> str:
    """What follows the last `</think>`; the whole completion where there is none. A thought alone has no answer."""
    return completion.rpartition(CLOSING)[2]


def fenced_blocks(text: str) -> list[Block]:
    """All fenced blocks in their order. Linear in the text.

    >>> fenced_blocks("so:\\n```json\\n{}\\n```\\ndone")
    [Block(label='json', text='{}', closed=True)]
    """
    found: list[Block] = []
    marks, label, lines = "", "", list[str]()
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line) if "```" in line or "~~~" in line else None
        if not marks:
            if fence is not None:
                marks, label, lines = fence[1], (fence[2].split() or [""])[0].lower(), []
        elif fence is not None and not fence[2] and fence[1][0] == marks[0] and len(fence[1]) >= len(marks):
            found.append(Block(label, "\n".join(lines), True))
            marks = ""
        else:
            lines.append(line)
    if marks:
        found.append(Block(label, "\n".join(lines), False))
    return found
