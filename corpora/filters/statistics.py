"""What the filters want to know of one document, each worked out once and on demand.

Counting is left to code that runs over the whole text at once (numpy over its bytes, one regular expression over its
comments and strings), because a loop over characters is a hundred times as slow.

Comments and strings are found with a pattern, not with a parser, so that they are known for text that does not parse
and in several languages. The pattern is exact for Python as long as quotes balance; f-strings that hold quotes of
their own kind (Python 3.12) and `/` that opens a JavaScript pattern can mislead it for the rest of a line.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cached_property
from typing import NamedTuple

import numpy as np

from corpora.document import Document
from corpora.filters.languages import language_of

HASH_COMMENTS = frozenset({
    "python", "cython", "shell", "ruby", "perl", "r", "makefile", "cmake", "dockerfile", "yaml", "toml", "julia", "awk",
    "tcl", "elixir", "nim", "crystal", "powershell",
})  # fmt: skip
"""Languages with `#` comments."""
SLASH_COMMENTS = frozenset({
    "javascript", "typescript", "java", "c", "c++", "cuda", "c#", "go", "rust", "php", "scala", "kotlin", "swift",
    "objective-c", "dart", "groovy", "solidity", "zig", "glsl", "thrift", "protocol-buffer", "antlr", "css", "verilog",
    "systemverilog", "d",
})  # fmt: skip
"""Languages with `//` and `/* */` comments."""

# Possessive quantifiers keep every pattern linear: what was matched is never given back.
_TRIPLE = r'"""(?:[^"\\]++|\\.|"(?!""))*+"""|\'\'\'(?:[^\'\\]++|\\.|\'(?!\'\'))*+\'\'\''
_HASH_MARKS = re.compile(
    # A string after a colon and a line feed documents what the colon opened; the colon tells it from other strings.
    rf"#[^\n]*+|:(?:[ \t]*+(?:#[^\n]*+)?\n)++[ \t]*+[rRuU]?(?:{_TRIPLE})|{_TRIPLE}"
    r'|"(?:[^"\\\n]++|\\.)*+"|\'(?:[^\'\\\n]++|\\.)*+\'',
    re.DOTALL,
)
_MODULE_DOCSTRING = re.compile(rf"(?:\s++|#[^\n]*+)*+[rRuU]?({_TRIPLE})", re.DOTALL)
_SLASH_MARKS = re.compile(
    r'//[^\n]*+|/\*(?:[^*]++|\*(?!/))*+\*/|"(?:[^"\\\n]++|\\.)*+"|\'(?:[^\'\\\n]++|\\.)*+\'|`(?:[^`\\]++|\\.)*+`',
    re.DOTALL,
)
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")

_LETTERS = np.array([chr(i).isalpha() for i in range(128)])
_DIGITS = np.array([chr(i).isdigit() for i in range(128)])
_SPACES = np.array([chr(i).isspace() for i in range(128)])


class CharacterCounts(NamedTuple):
    """How many characters of a text are letters, digits and white space (by Unicode), and how many there are."""

    letters: int
    digits: int
    spaces: int
    total: int


class MarkCounts(NamedTuple):
    """Characters in comments, in documentation strings and in other strings, quotes and comment signs included."""

    comments: int
    docstrings: int
    strings: int


class TextStatistics:
    """One document, measured. Everything but the text itself is computed when first asked for."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.path = document.path
        self.text = document.full_text()

    @cached_property
    def language(self) -> str:
        """Language in lower case; empty when unknown. The document's own statement goes before its path."""
        stated = self.document.language or self.document.provenance.get("language", "")
        return str(stated).lower() if stated else language_of(self.path, self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Lines without their line feeds; the line feed at the end of a file opens no further line."""
        lines = self.text.split("\n")
        if lines[-1] == "":
            lines.pop()
        return lines

    @cached_property
    def encoded(self) -> bytes:
        """The text in UTF-8; a lone surrogate becomes the three bytes that UTF-8 forbids."""
        return self.text.encode("utf-8", "surrogatepass")

    @cached_property
    def stripped(self) -> list[str]:
        """The lines without the white space around them."""
        return list(map(str.strip, self.lines))

    @cached_property
    def line_lengths(self) -> list[int]:
        """Characters of each line."""
        return list(map(len, self.lines))

    @cached_property
    def longest_line(self) -> int:
        """Characters in the longest line."""
        return max(self.line_lengths, default=0)

    @cached_property
    def mean_line(self) -> float:
        """Mean characters in a line, empty lines included."""
        return sum(self.line_lengths) / max(len(self.lines), 1)

    @cached_property
    def words(self) -> list[str]:
        """Runs of characters other than white space."""
        return self.text.split()

    @cached_property
    def lower(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    @cached_property
    def start(self) -> str:
        """The first five lines, at most 2,000 characters, in lower case: where a file says what it is."""
        return "\n".join(self.text[:2000].split("\n", 5)[:5]).lower()

    @cached_property
    def characters(self) -> CharacterCounts:
        """Counts of letters, digits and white space; the marks that combine with letters (vowel signs) are letters."""
        text = self.text
        counts = np.bincount(np.frombuffer(self.encoded, np.uint8), minlength=128)[:128]
        letters, digits, spaces = (int(counts[kind].sum()) for kind in (_LETTERS, _DIGITS, _SPACES))
        if not text.isascii():
            for character, count in Counter("".join(_NON_ASCII.findall(text))).items():
                letters += count * (character.isalpha() or unicodedata.category(character)[0] == "M")
                digits += count * character.isdigit()
                spaces += count * character.isspace()
        return CharacterCounts(letters, digits, spaces, len(text))

    @cached_property
    def marks(self) -> MarkCounts | None:
        """Comments, documentation strings and strings; None for a language whose comments are not known."""
        if self.language in HASH_COMMENTS:
            return self._hash_marks()
        if self.language in SLASH_COMMENTS:
            found = [(self.text[match.start()], match.end() - match.start()) for match in
                     _SLASH_MARKS.finditer(self.text)]
            comments = sum(length for first, length in found if first == "/")
            return MarkCounts(comments, 0, sum(length for _, length in found) - comments)
        return None

    def _hash_marks(self) -> MarkCounts:
        found = _HASH_MARKS.findall(self.text)
        comments = docstrings = strings = 0
        for mark in found:
            first = mark[0]
            if first == "#":
                comments += len(mark)
            elif first == ":":
                docstrings += len(mark)
            else:
                strings += len(mark)
        module = _MODULE_DOCSTRING.match(self.text)
        if module:
            length = module.end() - module.start(1)
            docstrings, strings = docstrings + length, strings - length
        return MarkCounts(comments, docstrings, strings)

    def fraction(self, count: int) -> float:
        """A count of characters as a share of the text's."""
        return count / max(len(self.text), 1)

