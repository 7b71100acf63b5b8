"""Repositories that are copies of others (`corpora/near_duplicates/repositories.py`) among all sources of a build.

They are looked for before exact duplicates: a file of a copy must not be the one that is kept of several. A task then
writes the rows of every shard that go with them; those count as dropped for all that follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpora import artifact
from corpora.executors import Executor, Task
from corpora.line import Line, open_line
from corpora.near_duplicates import repositories
from corpora.spool import read_batches
from corpora.work import Work

READER = "corpora.copies:read_files"
Shard = tuple[int, int]


def search(line: Line, shards: Sequence[Shard], executor: Executor) -> dict[str, Any]:
    """Find the copies among these shards, and the rows that go with them. Returns the search's report."""
    threshold = line.stage.duplicate_repositories
    assert threshold is not None
    folder = line.work.copies
    names = [f"{line.work.folder}|{i}|{shard}" for i, shard in shards]
    found = repositories.search(names, folder, threshold, READER, executor)
    for _ in executor.ordered(Task(f"{line.names[i]}, shard {shard}: copies of repositories", mark,
                                   (str(line.work.folder), i, shard)) for i, shard in shards):
        pass
    return {"threshold": threshold, "dropped": len(found), "kept": len({copy.of for copy in found.values()})}


def read_files(name: str) -> Iterator[tuple[str, str]]:
    """(repository, text) of every document of a shard; the source's name goes before a repository's."""
    folder, i, shard = name.rsplit("|", 2)
    line = open_line(folder)
    for batch in read_batches(line.work.first(int(i), int(shard)) / "documents"):
        for document in batch:
            yield name_of(line, int(i), document.repository), document.full_text()


def name_of(line: Line, i: int, repository: str) -> str:
    """The name of a repository over all sources; empty for none."""
    return f"{line.names[i]}/{repository}" if repository else ""


def mark(folder: str, i: int, shard: int) -> dict[str, Any]:
    """Task: write the rows of a shard that are of a copy. Returns no seconds."""
    line = open_line(folder)
    found = result(line.work)

    def write(partial: Path) -> None:
        rows, row = [], 0
        for batch in read_batches(line.work.first(i, shard) / "documents"):
            for document in batch:
                if name_of(line, i, document.repository) in found:
                    rows.append(row)
                row += 1
        artifact.write_arrays(partial, [np.array(rows, dtype=np.int64)])

    artifact.make(line.work.copied(i, shard), write)
    return {}


def rows_of(work: Work, i: int, shard: int) -> np.ndarray:
    """Rows of a shard that are of a copy, in order (int64); none where copies are not looked for."""
    place = work.copied(i, shard)
    return artifact.read_arrays(place, 1)[0] if place.exists() else np.zeros(0, dtype=np.int64)


def result(work: Work) -> dict[str, dict[str, Any]]:
    """Name of every copy -> the repository that it is a copy of, and the share of its bytes (`of`, `share`)."""
    found: dict[str, dict[str, Any]] = json.loads((work.copies / "result.json").read_text(encoding="utf-8"))
    return found
