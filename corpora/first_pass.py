"""The first pass over a shard: usable text, licence, filters, marks, redaction; all asked of each document alone.

    documents     those that are left, in their order (`corpora/spool.py`)
    digests, ids  for the exact duplicates (`corpora/exact.py`)
    state.json    what was read and dropped, and how much is left
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpora import artifact, exact
from corpora.account import Account
from corpora.cut import read_raw
from corpora.document import num_bytes
from corpora.dropped import USABLE, DropLog, drop_unusable
from corpora.line import Line, open_line
from corpora.rules import settle
from corpora.spool import write_batch
from corpora.timings import Timings


def first_pass(folder: str, i: int, shard: int) -> dict[str, Any]:
    """Task: the first pass over a shard of source i. Returns the seconds of its steps (`Timings.steps`)."""
    line, timings = open_line(folder), Timings()
    artifact.make(line.work.first(i, shard), lambda partial: _write(line, i, shard, partial, timings))
    return timings.steps()


def _write(line: Line, i: int, shard: int, partial: Path, timings: Timings) -> None:
    partial.mkdir()
    raw, rules = line.work.raw(i, shard), line.rules(i)
    dropped, account, records = DropLog(), Account(line.names[i]), exact.Records(i, shard)
    dropped.source = line.names[i]
    dropped.merge(line.names[i], artifact.read_state(raw))
    num_documents = size = 0
    with (partial / "documents").open("wb") as file:
        for batch in read_raw(raw):
            account.read(batch)
            dropped.step = USABLE
            batch = drop_unusable(batch, line.stage.output, dropped)
            with timings.step("rules"):
                batch = settle([rules.judge(document) for document in batch], dropped, account)
            with timings.step("exact duplicates"):
                if line.stage.deduplicate:
                    records.add(batch)
            with timings.step("spool"):
                write_batch(file, batch)
            num_documents += len(batch)
            size += sum(num_bytes(document.full_text()) for document in batch)
    records.write(partial)
    artifact.write_state(partial, {"documents": num_documents, "bytes": size, "dropped": dropped.state(line.names[i]),
                                   "account": account.state()})
