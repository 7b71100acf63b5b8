"""What is asked of one document alone: its licence, its quality, marks in it, secrets.

The order: licence, filters, marks, redaction. The filters see the text as it was written, duplicates are looked for in
the redacted one. Verdicts depend on the document and on the source's settings alone, so that it does not matter who
gives them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora import filters, fim, licences
from corpora.account import Account
from corpora.document import Document
from corpora.dropped import FILTERS, LICENCES, MARKS, DropLog
from corpora.redact import redact_document

SETS = {"code": filters.CODE, "math": filters.MATH, "prose": filters.PROSE}


class Verdict(NamedTuple):
    """One document: as it goes on, or the step and the reason why it does not."""

    document: Document
    step: str
    reason: str
    redactions: Counter[str] | None


class Rules:
    """The rules of one source."""

    def __init__(self, source: CorpusSource, field: str) -> None:
        """Raises UserError that names the field below `field` for a filter, setting or licence that is not known."""
        where = f"{field}.filters"
        self._chain = filters.Chain(named(source.filters, where), where) if source.filters else None
        self._licences = None if source.licences is None else admitted(source.licences, f"{field}.licences")
        self._kinds = frozenset(source.redact)
        self._marks = source.fim is not None or source.level == "repository"

    def judge(self, document: Document) -> Verdict:
        """The verdict on one document."""
        if self._licences is not None:
            licence = licences.licence_of(document)
            reason = licences.reason_against(licence, self._licences)
            if reason is not None:
                return Verdict(document, LICENCES, reason, None)
            document = dataclasses.replace(document, licence=licence or document.licence)
        if self._chain is not None:
            reason = self._chain.check(document)
            if reason is not None:
                return Verdict(document, FILTERS, reason, None)
        if self._marks and (reason := fim.check(document)) is not None:
            return Verdict(document, MARKS, reason, None)
        if self._kinds:
            document, counts = redact_document(document, self._kinds)
            return Verdict(document, "", "", counts or None)
        return Verdict(document, "", "", None)

    def identity(self) -> Any:
        """What the verdicts depend on beside the settings in the recipe."""
        return self._chain.identity() if self._chain else None


def named(given: Mapping[str, Mapping[str, Any]], field: str = "filters") -> dict[str, Mapping[str, Any]]:
    """Filters and their settings, with the sets among them taken apart; what is named later goes before.

    Raises:
        UserError: A set was given settings.

    >>> list(named({"math": {}, "origin": {}})), named({"math": {}, "math_content": {"min_words": 5}})["math_content"]
    (['math_content', 'repetition', 'origin'], {'min_words': 5})
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, settings in given.items():
        if name in SETS and settings:
            raise UserError(f"{field}.{name}: {dict(settings)} was given to a set of filters; allowed: nothing; name "
                            f"the filter after it, as in {{{name}: {{}}, {next(iter(SETS[name]))}: {{...}}}}")
        found.update(SETS.get(name, {name: settings}))
    return found


def admitted(given: tuple[str, ...], field: str) -> frozenset[str]:
    """Ids of an allow-list. Raises UserError for a name that is no known licence."""
    try:
        listed = licences.check_allowed(name for name in given if name != "permissive")
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None
    return listed | frozenset(licences.PERMISSIVE_ONLY) if "permissive" in given else listed


def settle(verdicts: Iterable[Verdict], dropped: DropLog, account: Account) -> list[Document]:
    """The documents that go on; drops and redactions are counted."""
    kept = []
    for verdict in verdicts:
        if verdict.reason:
            dropped.step = verdict.step
            dropped.add(verdict.document, verdict.reason)
            continue
        if verdict.redactions:
            account.redacted(verdict.redactions)
        kept.append(verdict.document)
    return kept


def all_rules(sources: Sequence[CorpusSource]) -> list[Rules]:
    """The rules of every source of a stage. Raises UserError that names the field of what is not known."""
    return [Rules(source, f"stage.sources[{i}]") for i, source in enumerate(sources)]
