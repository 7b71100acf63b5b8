"""The near-duplicate search (`corpora/near_duplicates/`) over what the first pass and the exact duplicates have left.

Its shards are runs of ours, at most `MOST_SHARDS`, because each of its tasks opens a file of every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corpora import artifact, exact, near_duplicates
from corpora.executors import Executor
from corpora.line import Line, open_line
from corpora.spool import read_batches

READER = "corpora.near:read_texts"
MOST_SHARDS = 1024


def search(line: Line, wave: int, executor: Executor) -> dict[str, Any]:
    """Search all shards of a wave. Returns the search's report."""
    settings = line.stage.near_duplicates
    assert settings is not None
    num = len(_listed(line, wave))
    size = _shards_in_one(num)
    names = [f"{line.work.folder}|{wave}|{first}|{min(first + size, num)}" for first in range(0, num, size)]
    near_duplicates.plan(names, line.work.near, near_duplicates.NearDuplicateSettings(**settings.model_dump()), READER)
    return near_duplicates.run(line.work.near, executor)


def read_texts(name: str) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a shard of the search; ids are unique over sources if they are within each."""
    folder, wave, first, last = name.rsplit("|", 3)
    line = open_line(folder)
    for i, shard in _listed(line, int(wave))[int(first):int(last)]:
        dropped = exact.of_shard(line.work, int(wave), i, shard)
        row = 0
        for batch in read_batches(line.work.first(i, shard) / "documents"):
            for document in batch:
                if row not in dropped:
                    yield f"{line.names[i]}/{document.id}", document.full_text()
                row += 1


def drops_of(line: Line, i: int, shard: int, wave: int | None) -> dict[int, dict[str, Any]]:
    """Near-duplicates of a shard, by their row among those of its documents that are no exact duplicates."""
    assert wave is not None
    listed = _listed(line, wave)
    size = _shards_in_one(len(listed))
    place = listed.index((i, shard))
    begin = sum(_num_read(line, wave, *one) for one in listed[place - place % size:place])
    end = begin + _num_read(line, wave, i, shard)
    found = {}
    for row, drop in near_duplicates.dropped_rows(line.work.near, place // size):
        if begin <= row < end:
            found[row - begin] = drop
    return found


def _listed(line: Line, wave: int) -> list[tuple[int, int]]:
    shards = artifact.read_arrays(line.work.exact(wave) / "shards", 1)[0]
    return [(i, shard) for i, shard in shards.tolist()]


def _shards_in_one(num: int) -> int:
    return -(-num // MOST_SHARDS)


def _num_read(line: Line, wave: int, i: int, shard: int) -> int:
    documents: int = artifact.read_state(line.work.first(i, shard))["documents"]
    return documents - len(exact.of_shard(line.work, wave, i, shard))
