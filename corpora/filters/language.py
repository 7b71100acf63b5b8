"""Documents that are no text, whose language is unknown or not wanted, or that are markup under another name.

Published: at most 1% of replacement characters (OpenCoder `code_filter_config.py`); no file with `<?xml version=`
among its first 100 characters unless it is XSLT (SantaCoder, StarCoder, DeepSeek-Coder).

Departures: XML and its dialects may say that they are XML. Control characters that no editor writes count as
replacement characters do; a NUL makes a file binary, as git has it.
"""

from __future__ import annotations

import re

from pydantic import Field

from configs.settings.common import Fraction, Frozen
from corpora.filters.languages import BY_EXTENSION
from corpora.filters.statistics import TextStatistics

REASONS = ("binary", "undecodable", "unknown_language", "unwanted_language", "xml_under_another_name")

_XML = frozenset({"xml", "xslt", "html"})
# The C1 controls stand in text only where Windows-1252 was read as Latin-1.
_UNREADABLE = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd]")


class Settings(Frozen):
    """What is let through."""

    languages: tuple[str, ...] = Field(
        default=(),
        description="Languages to keep, in lower case (`python`, `c++`, `markdown`); empty keeps every known one.",
    )
    keep_unknown: bool = Field(default=False, description="Keep files of which no language is known.")
    max_unreadable: Fraction = Field(
        default=0.01, description="Replacement and control characters of all characters (OpenCoder 0.01)."
    )

    def unknown(self) -> list[str]:
        """Languages asked for that no file can have."""
        return sorted(set(self.languages) - set(BY_EXTENSION.values()) - {"makefile", "dockerfile"})


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """Why the document's language does not do, or None."""
    text = statistics.text
    if "\x00" in text:
        return "binary"
    if _num_unreadable(text) > settings.max_unreadable * len(text):
        return "undecodable"
    language = statistics.language
    if not language:
        return None if settings.keep_unknown else "unknown_language"
    if settings.languages and language not in settings.languages:
        return "unwanted_language"
    return "xml_under_another_name" if "<?xml version=" in text[:100] and language not in _XML else None


def _num_unreadable(text: str) -> int:
    if text.isascii():  # one pass of C in place of a pattern
        return len(text) - len(text.translate(_ASCII_UNREADABLE))
    return len(_UNREADABLE.findall(text))


_ASCII_UNREADABLE = {i: None for i in range(128) if _UNREADABLE.match(chr(i))}
