"""The second pass over a shard: what is no duplicate is looked at for benchmark questions, encoded, and put on a shelf.

    records, index    the shelf (`corpora/shelf.py`)
    state.json        what was dropped, and what became of the rest

A source at level repository is parted by repository first (`corpora/regroup.py`): its tasks take groups of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpora import artifact, copies, exact
from corpora.account import Account
from corpora.document import Document, batches
from corpora.dropped import CONTAMINATION, EXACT, LENGTH, NEAR, REPOSITORIES, DropLog
from corpora.encode import Shelver
from corpora.line import Line, open_line
from corpora.near import drops_of
from corpora.shelf import Shelf
from corpora.spool import read_batches
from corpora.timings import Timings


def second_pass(folder: str, i: int, shard: int, wave: int | None) -> dict[str, Any]:
    """Task: the second pass over a shard of source i, whose exact duplicates were looked for in this wave.

    Returns:
        The seconds of its steps (`Timings.steps`).
    """
    line, timings = open_line(folder), Timings()

    def write(partial: Path) -> None:
        dropped = DropLog()
        documents = distinct(line, i, shard, wave, dropped)
        shelve(line, i, (one for batch in documents for one in batch), dropped, partial, timings)

    artifact.make(line.work.second(i, shard), write)
    return timings.steps()


def distinct(line: Line, i: int, shard: int, wave: int | None, dropped: DropLog) -> Iterator[list[Document]]:
    """What the first pass has left of a shard, without duplicates, which are dropped."""
    work = line.work
    dropped.source = line.names[i]
    exact_drops = exact.of_shard(work, wave, i, shard)
    near_drops = drops_of(line, i, shard, wave) if line.stage.near_duplicates else {}
    copied: dict[str, dict[str, Any]] = {}
    row = row_of_near = 0
    for batch in read_batches(work.first(i, shard) / "documents"):
        kept = []
        for document in batch:
            first = exact_drops.get(row)
            row += 1
            if first == exact.COPY:
                dropped.step = REPOSITORIES
                copied = copied or copies.result(work)
                copy = copied[copies.name_of(line, i, document.repository)]
                dropped.add(document, "duplicate_repository", duplicate_of=copy["of"], share=copy["share"])
                continue
            if first is not None:
                dropped.step = EXACT
                of = exact.id_at(work, first) if dropped.keeps("exact_duplicate") else ""
                dropped.add(document, "exact_duplicate", duplicate_of=of)
                continue
            found = near_drops.get(row_of_near)
            row_of_near += 1
            if found is None:
                kept.append(document)
                continue
            similarity = {key: value for key, value in found.items() if key.endswith("jaccard")}
            dropped.step = NEAR
            dropped.add(document, "near_duplicate", duplicate_of=found["duplicate_of"], **similarity)
        yield kept


def shelve(line: Line, i: int, documents: Iterable[Document], dropped: DropLog, partial: Path,
           timings: Timings) -> None:
    """Write the artifact of a second pass over these documents."""
    partial.mkdir()
    stage, account = line.stage, Account(line.names[i])
    with timings.step("loading"):
        benchmarks, encoder = line.benchmarks, line.encoder
    with Shelf(partial) as shelf:
        shelver = Shelver(stage, line.source(i), encoder, line.seed, shelf, dropped, account)
        for batch in batches(documents):
            dropped.source, dropped.step = line.names[i], CONTAMINATION
            with timings.step("decontamination"):
                batch = benchmarks.remove(batch, dropped)
            dropped.step = LENGTH
            with timings.step("tokens"):
                batch = shelver.shelve(batch)
            with timings.step("accounts"):
                account.keep(batch, stage.output == "tokens")
        with timings.step("tokens"):
            shelver.finish()
        shelf.finish()
        artifact.write_state(partial, {
            "documents": shelf.num_documents, "tokens": shelf.num_tokens, "dropped": dropped.state(line.names[i]),
            "account": account.state()})
