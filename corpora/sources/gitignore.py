"""What git would leave out of a checkout: the patterns of its .gitignore files, read as git reads them (gitignore(5)).

    rules = Ignored(root)
    rules.enter("src")                      # a folder's own .gitignore goes before those above it
    rules.ignores("src/a.pyc", is_folder=False)

A file that is tracked although a pattern names it counts as ignored here: what is tracked stands in git's index, which
is not read. Neither are a person's global patterns, so that the same checkout gives the same files to everyone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

NAMES = (".gitignore", ".git/info/exclude")
MAX_PATTERN_BYTES = 1 << 20
"""A longer .gitignore is none that anyone wrote."""


class Rule(NamedTuple):
    """One pattern: what it matches, whether it takes back what others ignore, whether it means folders only."""

    expression: re.Pattern[str]
    takes_back: bool
    folders_only: bool


class Ignored:
    """The patterns of one checkout, folder by folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rules: dict[str, list[Rule]] = {}

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether git leaves out this path below the root; the folders above it are taken to be looked at already."""
        folder = path.rpartition("/")[0]
        while True:
            inside = path[len(folder) + 1 :] if folder else path
            for rule in reversed(self._of(folder)):  # the last one that matches counts
                if (is_folder or not rule.folders_only) and rule.expression.fullmatch(inside):
                    return not rule.takes_back
            if not folder:
                return False
            folder = folder.rpartition("/")[0]

    def _of(self, folder: str) -> list[Rule]:
        if folder not in self._rules:
            found: list[Rule] = []
            for name in reversed(NAMES) if not folder else NAMES[:1]:
                found += _read(self._root / folder / name)
            self._rules[folder] = found
        return self._rules[folder]


def _read(path: Path) -> list[Rule]:
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_PATTERN_BYTES:
            return []
        lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    return [rule for line in lines if (rule := parse(line)) is not None]


def parse(line: str) -> Rule | None:
    """The rule of one line; None for a comment, a blank line, or a pattern that matches nothing.

    >>> [bool(parse("*.py[co]").expression.fullmatch(path)) for path in ("a.pyc", "b/a.pyo", "a.py")]
    [True, True, False]
    """
    text = line.removesuffix("\r")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    takes_back = text.startswith("!")
    text = text[1:] if takes_back else text
    folders_only = text.endswith("/")
    text = text.rstrip("/") if folders_only else text
    if not text:
        return None
    anchored = "/" in text
    text = text.removeprefix("/")
    try:
        return Rule(re.compile(("" if anchored else "(?:.*/)?") + _expression(text)), takes_back, folders_only)
    except re.error:
        return None


def _expression(pattern: str) -> str:
    """A regular expression for a pattern: `*` and `?` stop at slashes, `**` between slashes does not."""
    found, i = [], 0
    while i < len(pattern):
        one = pattern[i]
        at_start = i == 0 or pattern[i - 1] == "/"
        if pattern.startswith("**/", i) and at_start:
            found.append("(?:.*/)?")
            i += 3
        elif pattern[i:] == "**" and at_start:
            found.append(".+")
            i += 2
        elif one == "*":
            found.append("[^/]*")
            i += 1
        elif one == "?":
            found.append("[^/]")
            i += 1
        elif one == "[" and (end := _class_end(pattern, i)):
            found.append(_class(pattern[i + 1 : end]))
            i = end + 1
        elif one == "\\" and i + 1 < len(pattern):
            found.append(re.escape(pattern[i + 1]))
            i += 2
        else:
            found.append(re.escape(one))
            i += 1
    return "".join(found)


def _class_end(pattern: str, start: int) -> int:
    """Where `[...]` ends; 0 where it does not. A bracket that comes first is a member."""
    first = start + 1 + pattern[start + 1 : start + 2].count("!") + pattern[start + 1 : start + 2].count("^")
    return max(pattern.find("]", first + 1), 0)


def _class(members: str) -> str:
    inverted = members[:1] in ("!", "^")
    escaped = re.sub(r"([\[\]&~|\\])", r"\\\1", members[1:] if inverted else members)
    return f"(?!/)[{'^' if inverted else ''}{escaped}]"
