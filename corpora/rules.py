"""What is asked of one document alone: its licence, its quality, marks in it, secrets. In one process or in several.

The order: licence, filters, marks, redaction. The filters see the text as it was written, duplicates are looked for in
the redacted one. Verdicts depend on the document and on the source's settings alone, so that they are the same for
any number of workers; they come back in the order of the documents.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, NamedTuple

from configs.errors import RetryableError, UserError
from configs.settings.corpus import CorpusSource
from corpora import filters, fim, licences, workers
from corpora.account import Account
from corpora.document import Document
from corpora.dropped import FILTERS, LICENCES, MARKS, DropLog
from corpora.redact import redact_document

SETS = {"code": filters.CODE, "math": filters.MATH, "prose": filters.PROSE}
MOST_DEATHS = 3
"""Times that workers are replaced in one build."""


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
        self.any = bool(self._chain or self._licences is not None or self._kinds or self._marks)
        self.slow = bool(self._chain or self._kinds)

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


class Judges:
    """Applies the rules of all sources, in as many processes as are given."""

    def __init__(self, sources: Sequence[CorpusSource], num_workers: int) -> None:
        self._rules = [Rules(source, f"stage.sources[{i}]") for i, source in enumerate(sources)]
        self._sources = list(sources)
        self._num_workers = num_workers if any(rules.slow for rules in self._rules) else 1
        self._num_deaths = 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Judges:
        if self._num_workers > 1:
            self._pool = workers.pool(self._num_workers, _start, (self._sources,))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def identity(self) -> list[Any]:
        """What the verdicts depend on beside the settings in the recipe, for each source."""
        return [rules.identity() for rules in self._rules]

    def judged(self, i: int, batches: Iterable[list[Document]]) -> Iterator[list[Verdict]]:
        """The verdicts on the documents of source i, batch for batch in their order.

        With several workers up to two batches for each of them are read ahead; what a worker had when it died is done
        again.
        """
        rules = self._rules[i]
        if self._pool is None or not rules.slow:
            for batch in batches:
                yield [rules.judge(document) for document in batch]
            return
        ahead: deque[tuple[list[Document], Future[list[Verdict]]]] = deque()
        for batch in batches:
            ahead.append((batch, self._submit(i, batch)))
            if len(ahead) >= 2 * self._num_workers:
                yield self._first(i, ahead)
        while ahead:
            yield self._first(i, ahead)

    def _submit(self, i: int, batch: list[Document]) -> Future[list[Verdict]]:
        assert self._pool is not None
        try:
            return self._pool.submit(_judge, i, batch)
        except BrokenProcessPool as error:  # found out when its turn comes
            failed: Future[list[Verdict]] = Future()
            failed.set_exception(error)
            return failed

    def _first(self, i: int, ahead: deque[tuple[list[Document], Future[list[Verdict]]]]) -> list[Verdict]:
        """The verdicts on the first batch; with new workers where the old ones are gone."""
        while True:
            try:
                found = ahead[0][1].result()
            except BrokenProcessPool as error:
                self._num_deaths += 1
                if self._num_deaths > MOST_DEATHS:
                    raise RetryableError(
                        f"workers of the corpus stage died {self._num_deaths} times (look for the machine's "
                        "out-of-memory killer); take fewer threads in the machine profile and start again") from error
                self.__exit__(None, None, None)
                self.__enter__()
                again = [(batch, self._submit(i, batch)) for batch, _ in ahead]
                ahead.clear()
                ahead.extend(again)
                continue
            ahead.popleft()
            return found


_worker_rules: list[Rules] = []
"""The rules of this worker process."""


def _start(sources: list[CorpusSource]) -> None:
    _worker_rules[:] = [Rules(source, "stage.sources") for source in sources]


def _judge(i: int, batch: list[Document]) -> list[Verdict]:
    return [_worker_rules[i].judge(document) for document in batch]
