"""A source cut into shards: consecutive documents, as many as a task takes at once.

One process reads a source, at a hundred megabytes a second and more, and writes each shard to the shared folder, where
a task finds it. What is read ahead of the tasks is bounded by the executor. Where a shard ends depends on the source
and on the recipe alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from configs.settings.corpus import CorpusSource
from corpora import artifact, sources
from corpora.document import BATCH_CHARS, Document, batches
from corpora.dropped import READING, DropLog
from corpora.spool import read_batches, write_batch
from corpora.timings import Timings

SHARD_CHARS = 8 * BATCH_CHARS
"""Characters of a shard, less than a batch more: half a second of work for the quickest line, several for a thorough
one."""
SHARDS_PER_BUDGET = 8
CHARS_PER_TOKEN = 4
"""Of code and prose, roughly; decides only how finely a source with a token budget is cut."""


class Raw(NamedTuple):
    """A shard as it was read.

    Attributes:
        batches: Its documents.
        dropped: What the source itself dropped on the way (`DropLog.state`).
    """

    batches: list[list[Document]]
    dropped: dict[str, Any]


def shard_chars(budget: int | None) -> int:
    """Characters of a shard of a source that may give so many tokens: small enough to end not far behind them."""
    if budget is None:
        return SHARD_CHARS
    return min(max(budget * CHARS_PER_TOKEN // SHARDS_PER_BUDGET, BATCH_CHARS), SHARD_CHARS)


def cut(source: CorpusSource, name: str, output: str, chars: int, timings: Timings) -> Iterator[Raw]:
    """The shards of a source, in order. Raises UserError for what stops the reading (a torn line, a wrong column)."""
    dropped = DropLog()
    dropped.source, dropped.step = name, READING
    read = batches(sources.open_source(source, output, dropped))
    held: list[list[Document]] = []
    num_chars = 0
    while True:
        with timings.step("reading"):
            batch = next(read, None)
            if batch is not None:
                held.append(batch)
                num_chars += sum(len(document.full_text()) for document in batch)
            state = dropped.take() if batch is None or num_chars >= chars else None
        if state is not None and (held or state["counts"]):
            yield Raw(held, state)
        if batch is None:
            return
        if state is not None:
            held, num_chars = [], 0


def write_raw(path: Path, raw: Raw) -> None:
    """Publish a shard as a folder."""
    def write(partial: Path) -> None:
        partial.mkdir()
        artifact.write_state(partial, raw.dropped)
        with (partial / "documents").open("wb") as file:
            for batch in raw.batches:
                write_batch(file, batch)

    artifact.make(path, write)


def read_raw(path: Path) -> Iterator[list[Document]]:
    """Documents of a shard as they were read, by batches."""
    return read_batches(path / "documents")
