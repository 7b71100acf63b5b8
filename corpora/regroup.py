"""Documents of a source parted by repository, for a source whose repositories are wanted whole.

A task parts one shard; the second pass over a group reads the group's documents of every shard. All of a repository
are in one group, drawn by the hash of its name; within a group repositories come by name, documents of none first, each
in the order of the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpora import artifact
from corpora.cut import SHARD_CHARS
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.line import Line, open_line
from corpora.second_pass import distinct, shelve
from corpora.spool import read_objects, write_object
from corpora.timings import Timings


def num_groups(size: int) -> int:
    """Groups for a source with so many bytes after the first pass."""
    return max(round(size / SHARD_CHARS), 1)


def regroup(folder: str, i: int, shard: int, wave: int | None, groups: int) -> dict[str, Any]:
    """Task: part what is left of a shard of source i. Returns the seconds of its steps (`Timings.steps`)."""
    line, timings = open_line(folder), Timings()

    def write(partial: Path) -> None:
        partial.mkdir()
        dropped = DropLog()
        held: list[list[Document]] = [[] for _ in range(groups)]
        for batch in distinct(line, i, shard, wave, dropped):
            for document in batch:
                held[group_of(document, shard, groups)].append(document)
        ends = [0]
        with (partial / "documents").open("wb") as file:
            for documents in held:
                write_object(file, documents)
                ends.append(file.tell())
        artifact.write_arrays(partial / "ends", [np.array(ends, dtype=np.int64)])
        artifact.write_state(partial, {"dropped": dropped.state(line.names[i])})

    with timings.step("regrouping"):
        artifact.make(line.work.regrouped(i, shard), write)
    return timings.steps()


def second_pass_over_group(folder: str, i: int, group: int, num_shards: int) -> dict[str, Any]:
    """Task: the second pass over one group of repositories. Returns the seconds of its steps (`Timings.steps`)."""
    line, timings = open_line(folder), Timings()

    def write(partial: Path) -> None:
        documents = [document for shard in range(num_shards) for document in _read(line, i, shard, group)]
        documents.sort(key=lambda document: document.repository)
        shelve(line, i, documents, DropLog(), partial, timings)

    artifact.make(line.work.second(i, group), write)
    return timings.steps()


def group_of(document: Document, shard: int, groups: int) -> int:
    """The group of a document; those of no repository are spread by their shard."""
    if not document.repository:
        return shard % groups
    digest = hashlib.blake2b(document.repository.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % groups


def _read(line: Line, i: int, shard: int, group: int) -> Iterator[Document]:
    place = line.work.regrouped(i, shard)
    (ends,) = artifact.read_arrays(place / "ends", 1)
    with (place / "documents").open("rb") as file:
        file.seek(int(ends[group]))
        yield from next(read_objects(file))
