"""Text that others wrote, put into a page of Markdown so that it stays text.

Completions, prompts, reasons of verifiers and messages of libraries may hold anything: HTML, fences of backticks,
pipes, links, images that would be fetched, directions of writing, megabytes. Here they become code (`fenced`, `inline`,
`cell`), in which Markdown obeys nothing, with control characters written out. What is cut says how much is missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

MAX_LINE = 78
"""Characters after which a line of a block is broken: the page's blocks do not wrap by themselves."""
MAX_LINES = 40


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Control, format and direction characters written out instead of obeyed.

    >>> visible("a\x1b[31m\u202eb")
    'a\\u001b[31m\\u202eb'
    """
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else f"\\u{ord(character):04x}"
        for character in text
    )


def middle_cut(text: str, first: int, last: int) -> str:
    r"""The first and the last characters of a text that is longer than both together, and how many are missing.

    >>> middle_cut("abcdefghij", 3, 2)
    'abc\n… (5 characters left out) …\nij'
    """
    missing = len(text) - first - last
    if missing <= 0:
        return text
    return f"{text[:first]}\n… ({missing:,} characters left out) …\n{text[len(text) - last :]}"


def fenced(text: str, first: int = 500, last: int = 500, width: int = MAX_LINE) -> str:
    """A code block of the text, its middle cut to so many characters, lines broken at `width`.

    The fence is longer than any run of backticks in it, so that nothing in the text can end it.
    """
    shown = visible(middle_cut(text, first, last).replace("\r\n", "\n"))
    shown = re.sub(r"\n{4,}", lambda found: f"\n… ({len(found[0]):,} line breaks) …\n", shown)
    lines = [part for line in shown.split("\n") for part in _broken(line, width)]
    if len(lines) > MAX_LINES:
        kept = MAX_LINES // 2
        lines = [*lines[:kept], f"… ({len(lines) - 2 * kept} lines left out) …", *lines[-kept:]]
    body = "\n".join(lines)
    fence = "`" * max(3, 1 + _longest_run(body))
    return f"{fence}text\n{body}\n{fence}"


def inline(text: Any, limit: int = 120) -> str:
    r"""A text as code within a line, on one line, cut at the end; not for a table (`cell`).

    >>> inline("a`b|c\nd"), inline("")
    ('``a`b|c d``', '')
    """
    plain = visible(" ".join(str(text)[: 4 * limit].split()), keep="")
    plain = plain if len(plain) <= limit else f"{plain[: limit - 1]}…"
    if not plain:
        return ""
    fence = "`" * (1 + _longest_run(plain))
    space = " " if plain[0] == "`" or plain[-1] == "`" else ""
    return f"{fence}{space}{plain}{space}{fence}"


def cell(text: Any, limit: int = 120) -> str:
    r"""`inline` for a table, where a pipe ends the cell even within code unless it is escaped.

    >>> cell("a|b")
    '`a\\|b`'
    """
    return inline(text, limit).replace("|", r"\|")


def escaped(text: Any, limit: int = 400) -> str:
    r"""A text of our own on one line, read as it stands; a bare address in it may still become a link.

    >>> escaped("a *b* <c>")
    'a \\*b\\* \\<c\\>'
    """
    plain = visible(" ".join(str(text)[: 4 * limit].split()), keep="")
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", plain if len(plain) <= limit else f"{plain[: limit - 1]}…")


def name_of(text: str) -> str:
    """A name for a title or a diagram: of a path its last part, and what could mean something there left out.

    >>> name_of("/data/models/base"), name_of('Qwen/Qwen2.5-7B'), name_of('a"]<b>')
    ('base', 'Qwen/Qwen2.5-7B', 'a___b_')
    """
    short = text.rstrip("/").rpartition("/")[2] if text.startswith((".", "/", "~")) else text
    return re.sub(r"[^a-zA-Z0-9./ -]", "_", short)[:80] or "unnamed"


def table(rows: Sequence[Mapping[str, str]], right: Sequence[str] = ()) -> list[str]:
    """Lines of a table; cells are Markdown already. Columns named in `right` are set to the right."""
    if not rows:
        return []
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|" + "|".join("---:" if name in right else "---" for name in names) + "|"]
    return [*lines, *(f"| {' | '.join(row.get(name, '') for name in names)} |" for row in rows)]


def _broken(line: str, width: int) -> list[str]:
    """A line in pieces, cut after a space where one is near the end of the width."""
    pieces = []
    while len(line) > width:
        cut = line.rfind(" ", width - width // 4, width) + 1 or width
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
