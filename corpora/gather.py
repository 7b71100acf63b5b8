"""From the sources to shelves of clean documents, every drop with its reason.

One source after another, batch by batch: usable text, licence, filters, marks, redaction (`rules.py`), exact
duplicates. Where near-duplicates are looked for, or a repository has to be together, the documents then go to a spool
on disk; the search is made over all spools; and a second pass reads them again. Last comes the decontamination, then
the shelf.

Memory is bounded by batches, by 200 bytes for each document (exact duplicates), and by the largest repository.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from configs.settings.corpus import CorpusStage
from configs.stage import Progress, StageFile
from corpora import near_duplicates, sources, spool
from corpora.account import Account
from corpora.decontaminate import Decontaminator, load_benchmarks
from corpora.dedup import Seen
from corpora.document import Document, batches
from corpora.dropped import CONTAMINATION, EXACT, LENGTH, NEAR, READING, USABLE, DropBuffer, DropLog, drop_unusable
from corpora.encode import Shelver
from corpora.mix import parts_of_budget
from corpora.product import Gathered, source_names
from corpora.rules import Judges, settle
from corpora.shelf import Shelf
from corpora.timings import Timings
from corpora.tokens import load_encoder
from corpora.work import Work

BATCHES_PER_LINE = 16
"""Batches of documents between two lines of the progress log."""
SPOOLED_BYTES_PER_TOKEN = 6
"""A spooled source is read until it holds so many bytes for each token of its part of the budget: tokens of code and
prose have three to five, the rest makes up for what the second pass drops."""


class Cleaner:
    """What the sources share while they are read: all that was seen, every benchmark, every drop."""

    def __init__(self, stage_file: StageFile, stage: CorpusStage, progress: Progress, judges: Judges,
                 num_workers: int, timings: Timings) -> None:
        self.stage = stage
        self.seed = stage_file.seed
        self.progress = progress
        self.judges = judges
        self.num_workers = num_workers
        self.timings = timings
        self.seen = Seen()
        self.dropped = DropLog()
        self.near_report: dict[str, Any] | None = None
        with timings.step("benchmarks"):
            self.benchmarks = Decontaminator(load_benchmarks(stage.decontaminate), stage.ngram, stage.subsequence)
        self.encoder = None
        if stage.output != "problems":
            self.encoder = load_encoder(stage_file.model_folder("base"), stage_file.machine.num_threads)

    def gather(self, shelves: list[Shelf], out: Path) -> tuple[list[Gathered], Work | None]:
        """Put the clean documents of every source on its shelf: all, or enough for its part of the mixture."""
        names, parts = source_names(self.stage), budgets(self.stage)
        with self.timings.step("reading"):
            identities = [sources.identity(source) for source in self.stage.sources]
        gathered = [Gathered(names[i], source, parts[i], shelves[i], Account(names[i]), identities[i])
                    for i, source in enumerate(self.stage.sources)]
        spooled = [bool(self.stage.near_duplicates) or source.level == "repository" for source in self.stage.sources]
        work = Work(out, self.stage, self.seed, [self.judges.identity(), identities]) if any(spooled) else None
        for i, one in enumerate(gathered):
            if work is None or not spooled[i]:
                self._stream(i, one)
                continue
            self._spool(i, one, work)
            if not self.stage.near_duplicates:
                self._finish(i, one, (document for _, document in spool.read(work.spool(i), one.by_repository())))
        if work is not None and self.stage.near_duplicates:
            self._search(work, len(gathered))
            for i, one in enumerate(gathered):
                self._finish(i, one, self._distinct(i, one, work))
        for one in gathered:
            one.account.check(self.dropped)
        return gathered, work

    def _stream(self, i: int, one: Gathered) -> None:
        """Both passes at once, for a source whose documents need no other to be looked at."""
        shelver = self._shelver(one)
        for number, batch in enumerate(self._first_pass(i, one)):
            self._second_pass(one, batch, shelver)
            if number % BATCHES_PER_LINE == 0:
                self.log(i, one)
            if one.has_enough():
                break
        else:
            one.read_whole = True
        self._end(i, one, shelver)

    def _spool(self, i: int, one: Gathered, work: Work) -> None:
        """The first pass, to disk; what an earlier run finished is taken over."""
        state = work.state(i)
        if state is None:
            bound = None if one.budget is None else SPOOLED_BYTES_PER_TOKEN * one.budget
            with spool.SpoolWriter(work.begin(i) / "documents", one.name) as writer:
                for number, batch in enumerate(self._first_pass(i, one)):
                    with self.timings.step("spool"):
                        writer.add(batch)
                    if number % BATCHES_PER_LINE == 0:
                        self.log(i, one, spooled=writer.num_documents)
                    if bound is not None and writer.num_bytes >= bound and sources.may_stop_early(one.source):
                        break
                else:
                    one.read_whole = True
            work.publish(i, {"dropped": self.dropped.state(one.name), "account": one.account.state(),
                             "read_whole": one.read_whole})
            return
        one.read_whole = state["read_whole"]
        self.dropped.restore(one.name, state["dropped"])
        one.account.restore(state["account"])
        if self.stage.deduplicate:
            for batch in batches(document for _, document in spool.read(work.spool(i))):
                kept = self.seen.deduplicate(batch, self.dropped)
                assert len(kept) == len(batch), f"{one.name}: its spool holds duplicates"

    def _first_pass(self, i: int, one: Gathered) -> Iterator[list[Document]]:
        """Batches that each document's own rules, and exact duplicates, have left."""
        held: deque[tuple[list[Document], list[tuple[Document, str, str, dict[str, Any]]]]] = deque()
        verdicts = self.judges.judged(i, self._read(one, held))
        while True:
            with self.timings.step("rules"):
                found = next(verdicts, None)
            batch, drops = held.popleft()
            # What was read ahead of this batch is not looked at yet, so that the log's order is that of one process.
            self.dropped.source = one.name
            one.account.read(batch)
            for document, step, reason, details in drops:
                self.dropped.step = step
                self.dropped.add(document, reason, **details)
            if found is None:
                return
            kept = settle(found, self.dropped, one.account)
            if self.stage.deduplicate:
                self.dropped.step = EXACT
                with self.timings.step("exact duplicates"):
                    kept = self.seen.deduplicate(kept, self.dropped)
            yield kept

    def _read(self, one: Gathered, held: deque[Any]) -> Iterator[list[Document]]:
        """Batches of usable documents; what was read and dropped for each goes to `held`, and once more at the end."""
        buffer = DropBuffer()
        buffer.step = READING
        documents = batches(sources.open_source(one.source, self.stage.output, buffer))
        while True:
            with self.timings.step("reading"):
                batch = next(documents, None)
                buffer.step = USABLE
                usable = drop_unusable(batch or [], self.stage.output, buffer)
                buffer.step = READING
            held.append((batch or [], buffer.take()))
            if batch is None:
                return
            yield usable

    def _search(self, work: Work, num_sources: int) -> None:
        """The near-duplicate search over all spools."""
        settings = self.stage.near_duplicates
        assert settings is not None
        shards = [str(work.spool(i)) for i in range(num_sources)]
        with self.timings.step("near-duplicates"):
            near_duplicates.plan(shards, work.folder / "near",
                                 near_duplicates.NearDuplicateSettings(**settings.model_dump()), spool.READER)
            self.near_report = near_duplicates.run(work.folder / "near", self.num_workers)

    def _distinct(self, i: int, one: Gathered, work: Work) -> Iterator[Document]:
        """The spooled documents of a source without those that are dropped as near-duplicates."""
        drops = near_duplicates.dropped_rows(work.folder / "near", i)
        following = next(drops, None)
        keeps = bytearray()
        for row, document in spool.read(work.spool(i)):
            if following is None or row != following[0]:
                keeps.append(1)
                if not one.by_repository():
                    yield document
                continue
            keeps.append(0)
            found = following[1]
            self.dropped.source, self.dropped.step = one.name, NEAR
            similarity = {key: value for key, value in found.items() if key.endswith("jaccard")}
            self.dropped.add(document, "near_duplicate", duplicate_of=found["duplicate_of"], **similarity)
            following = next(drops, None)
        assert following is None, "the near-duplicate search names a document that the spool does not have"
        if one.by_repository():
            yield from (document for row, document in spool.read(work.spool(i), True) if keeps[row])

    def _finish(self, i: int, one: Gathered, documents: Iterable[Document]) -> None:
        """The second pass over a spooled source."""
        shelver = self._shelver(one)
        for number, batch in enumerate(batches(documents)):
            self._second_pass(one, batch, shelver)
            if number % BATCHES_PER_LINE == 0:
                self.log(i, one)
        self._end(i, one, shelver)

    def _second_pass(self, one: Gathered, batch: list[Document], shelver: Shelver) -> None:
        self.dropped.source, self.dropped.step = one.name, CONTAMINATION
        with self.timings.step("decontamination"):
            batch = self.benchmarks.remove(batch, self.dropped)
        self.dropped.step = LENGTH
        with self.timings.step("tokens"):
            batch = shelver.shelve(batch)
        with self.timings.step("accounts"):
            one.account.keep(batch, self.stage.output == "tokens")

    def _shelver(self, one: Gathered) -> Shelver:
        return Shelver(self.stage, one.source, self.encoder, self.seed, one.shelf, self.dropped, one.account)

    def _end(self, i: int, one: Gathered, shelver: Shelver) -> None:
        with self.timings.step("tokens"):
            shelver.finish()
            one.shelf.finish()
        self.log(i + 1, one)

    def log(self, step: int, one: Gathered, **figures: Any) -> None:
        """One line of progress; steps are sources, plus one for the mixture."""
        shown = {f"corpus/{name}": value for name, value in figures.items()}
        self.progress.write(step, len(self.stage.sources) + 1, source=one.name, **{
            "corpus/source_documents": one.shelf.num_documents, "corpus/source_tokens": one.shelf.num_tokens,
            "corpus/dropped": self.dropped.total(), **shown})


def budgets(stage: CorpusStage) -> list[int | None]:
    """Tokens that each source may give; None takes all."""
    if stage.num_tokens is None:
        return [None] * len(stage.sources)
    return list(parts_of_budget(stage.num_tokens, [source.weight for source in stage.sources]))
