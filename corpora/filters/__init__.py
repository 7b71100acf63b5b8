"""Filters: which documents of a source are worth learning from, each rule with a named reason.

A filter is a module with `REASONS`, `Settings` (its thresholds, with the published values and their source) and
`check(statistics, settings) -> reason | None`, and with `version()` where the machine has a say (the Python whose
syntax counts). It reads one document and nothing else, keeps no state, and rewrites nothing. A recipe names filters in
the order in which they are asked; the first reason counts.

    from corpora.filters import Chain
    chain = Chain({"language": {"languages": ["python"]}, "line_shape": {}, "python_syntax": {}})
    kept = chain.remove(batch, dropped)

`CODE`, `MATH` and `PROSE` are the filters for these kinds of text, cheapest first.

To add a filter: a module beside these, a line in `FILTERS`, a test of each boundary (tests/unit), a row in
docs/corpora/filters.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from configs.errors import UserError
from configs.settings.common import Frozen
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.filters import (
    characters,
    comments,
    encoded_data,
    language,
    line_shape,
    math_content,
    origin,
    prose_lines,
    prose_words,
    python_shape,
    python_syntax,
    repetition,
    runs,
)
from corpora.filters.statistics import TextStatistics

FILTERS: dict[str, ModuleType] = {
    "language": language,
    "origin": origin,
    "line_shape": line_shape,
    "characters": characters,
    "encoded_data": encoded_data,
    "comments": comments,
    "python_shape": python_shape,
    "python_syntax": python_syntax,
    "math_content": math_content,
    "prose_words": prose_words,
    "prose_lines": prose_lines,
    "repetition": repetition,
    "runs": runs,
}
"""Name in a recipe -> the module."""

CODE: dict[str, dict[str, Any]] = {
    "language": {}, "origin": {}, "line_shape": {}, "characters": {}, "encoded_data": {}, "comments": {},
    "python_shape": {}, "python_syntax": {},
}  # fmt: skip
"""For source code of any language; the two of Python let others through."""
MATH: dict[str, dict[str, Any]] = {
    "math_content": {},
    "repetition": {"max_frequent": (0.4, 0.36, 0.32), "max_repeated": (0.6, 0.6, 0.6, 0.6, 0.6, 0.6)},
}
"""For pages and worked solutions of mathematics. A solution repeats its question's words: Gopher's bounds drop one in
eleven of a set of worked word problems. Those for repeated runs are OpenCoder's for text, the others are doubled."""
PROSE: dict[str, dict[str, Any]] = {"prose_words": {}, "prose_lines": {}, "repetition": {}}
"""For running text."""


class Chain:
    """Filters in order, with their settings.

    Args:
        filters: Name -> settings that differ from the defaults.
        field: Dotted path in the recipe, for messages.

    Raises:
        UserError: No filter of that name, or a setting that it does not have or take.
    """

    def __init__(self, filters: Mapping[str, Mapping[str, Any]], field: str = "filters") -> None:
        self._steps = [(name, FILTERS[name].check, settings_of(name, given, f"{field}.{name}"))
                       for name, given in filters.items() if _known(name, field)]

    def check(self, document: Document) -> str | None:
        """The first reason to drop the document, or None."""
        statistics = TextStatistics(document)
        for _, check, settings in self._steps:
            reason: str | None = check(statistics, settings)
            if reason is not None:
                return reason
        return None

    def remove(self, batch: list[Document], dropped: DropLog) -> list[Document]:
        """The documents of a batch that pass; the others are dropped with their reasons."""
        kept = []
        for document in batch:
            reason = self.check(document)
            if reason is None:
                kept.append(document)
            else:
                dropped.add(document, reason)
        return kept

    def identity(self) -> dict[str, Any]:
        """What the verdicts depend on: every threshold, and the Python whose syntax counts."""
        found: dict[str, Any] = {}
        for name, _, settings in self._steps:
            version = getattr(FILTERS[name], "version", None)
            found[name] = settings.model_dump(mode="json") | ({"version": version()} if version else {})
        return found


def settings_of(name: str, given: Mapping[str, Any], field: str) -> Frozen:
    """A filter's settings. Raises UserError with the field, the value and what is allowed."""
    kind = FILTERS[name].Settings
    try:
        settings: Frozen = kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([field, *map(str, first["loc"])])
        allowed = ", ".join(kind.model_fields) or "no setting"
        raise UserError(f"{where}: {str(first.get('input'))[:80]!r}: {first['msg']}; allowed: {allowed}") from None
    if isinstance(settings, language.Settings) and settings.unknown():
        value = settings.unknown()[0]
        raise UserError(f"{field}.languages: {value!r} is no language that a file name tells"
                        f"{_nearest(value, languages())}; allowed: {', '.join(languages()[:12])} and more")
    return settings


def languages() -> list[str]:
    """Languages that can be asked for, sorted."""
    from corpora.filters.languages import BY_EXTENSION

    return sorted(set(BY_EXTENSION.values()))


def _known(name: str, field: str) -> bool:
    if name not in FILTERS:
        raise UserError(f"{field}: {name!r} is no filter{_nearest(name, list(FILTERS))}; allowed: {', '.join(FILTERS)}")
    return True


def _nearest(value: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(value, allowed, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
