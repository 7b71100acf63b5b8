"""Exact duplicates over all shards: the document that comes first wins, by source, then by its place in the source.

The first pass writes a record for every document that it leaves: the digest of its text (`corpora/dedup.py`) and its
place. Records of one range of digests are read from all shards at once, so that memory is bounded however many
documents there are, and a range is a task. What is found is sorted by place: the second pass over a shard reads its
part.

A wave is what is looked at together. Where a token budget ends the reading, shards come in several waves, each behind
all earlier ones; what was found for those does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from corpora import artifact, copies
from corpora.dedup import text_digest
from corpora.document import Document
from corpora.work import Work

RECORD = np.dtype([("key", "<u8"), ("rest", "<u8"), ("place", "<u8")])
FOUND = np.dtype([("place", "<u8"), ("first", "<u8")])
"""A duplicate, and the place of the document that came first."""
GROUP_RECORDS = 2_000_000
"""Records of a range, on average: 48 MB, and three times as much while they are sorted."""
_ROW_BITS, _SHARD_BITS = 24, 24
MOST_SHARDS = 1 << _SHARD_BITS
COPY = -1
"""Stands for a place where a document goes because its whole repository does (`corpora/copies.py`)."""
Shard = tuple[int, int]
"""Source and number."""


def place_of(i: int, shard: int, row: int = 0) -> int:
    """A number for a document, in the order of precedence."""
    assert row < 1 << _ROW_BITS and shard < MOST_SHARDS and i < 1 << 16
    return (i << _SHARD_BITS | shard) << _ROW_BITS | row


def shard_and_row(place: int) -> tuple[int, int, int]:
    """Source, shard and row of a place."""
    return place >> (_ROW_BITS + _SHARD_BITS), place >> _ROW_BITS & (MOST_SHARDS - 1), place & ((1 << _ROW_BITS) - 1)


class Records:
    """Collects the records of one shard."""

    def __init__(self, i: int, shard: int) -> None:
        self._digests: list[bytes] = []
        self._ids: list[bytes] = []
        self._begin = place_of(i, shard)

    def add(self, documents: Sequence[Document]) -> None:
        """Add documents in their order."""
        self._digests += [text_digest(document.full_text()) for document in documents]
        self._ids += [document.id.encode("utf-8", "surrogatepass") for document in documents]
        assert len(self._ids) < 1 << _ROW_BITS

    def write(self, folder: Path) -> None:
        """Write FOLDER/digests, sorted by digest, and FOLDER/ids."""
        records = np.zeros(len(self._digests), dtype=RECORD)
        both = np.frombuffer(b"".join(self._digests), dtype="<u8").reshape(-1, 2)
        records["key"], records["rest"] = both[:, 0], both[:, 1]
        records["place"] = self._begin + np.arange(len(records), dtype=np.uint64)
        (folder / "digests").write_bytes(records[np.argsort(records["key"], kind="stable")].tobytes())
        ends = np.cumsum([0, *map(len, self._ids)])
        artifact.write_arrays(folder / "ids", [ends, np.frombuffer(b"".join(self._ids), dtype=np.uint8)])


def begin_wave(work: Work, wave: int, earlier: Sequence[Shard], shards: Sequence[Shard]) -> int:
    """Say which shards a wave has; the earlier ones are looked at and not judged again. Returns its groups."""
    def write(partial: Path) -> None:
        listed = np.array([*earlier, *shards], dtype=np.int64).reshape(-1, 2)
        size = sum((work.first(i, shard) / "digests").stat().st_size for i, shard in listed.tolist())
        groups = max(-(-size // (RECORD.itemsize * GROUP_RECORDS)), 1)
        begin = place_of(*shards[0])
        artifact.write_arrays(partial, [listed, np.array([begin, groups], dtype=np.uint64)])

    work.exact(wave).mkdir(parents=True, exist_ok=True)
    artifact.make(work.exact(wave) / "shards", write)
    return int(artifact.read_arrays(work.exact(wave) / "shards", 2)[1][1])


def find(folder: str, wave: int, group: int) -> None:
    """Task: the duplicates of one range of digests among the shards of a wave."""
    work = Work(Path(folder))
    shards, (begin, groups) = artifact.read_arrays(work.exact(wave) / "shards", 2)

    def write(partial: Path) -> None:
        records = np.concatenate([np.zeros(0, dtype=RECORD), *(
            _without_copies(work, i, shard, _range(work.first(i, shard) / "digests", group, int(groups)))
            for i, shard in shards.tolist())])
        partial.write_bytes(duplicates(records, int(begin)).tobytes())

    artifact.make(work.exact(wave) / f"{group:06d}", write)


def duplicates(records: np.ndarray, begin: int) -> np.ndarray:
    """Those records (`RECORD`) from place `begin` on whose digest another one has before them (`FOUND`), by place."""
    order = np.argsort(records["key"], kind="stable")
    keys = records["key"][order]
    same = keys[1:] == keys[:-1]
    shared = (np.append(same, False) | np.insert(same, 0, False))[:len(records)]
    few = records[order[shared]]  # of most digests there is but one
    few = few[np.lexsort((few["place"], few["rest"], few["key"]))]
    is_first = np.append(True, (few["key"][1:] != few["key"][:-1]) | (few["rest"][1:] != few["rest"][:-1]))[:len(few)]
    firsts = np.maximum.accumulate(np.where(is_first, np.arange(len(few)), 0))
    found = np.zeros(len(few), dtype=FOUND)
    found["place"], found["first"] = few["place"], few["place"][firsts]
    found = found[~is_first & (found["place"] >= np.uint64(begin))]
    return found[np.argsort(found["place"])]


def of_shard(work: Work, wave: int | None, i: int, shard: int) -> dict[int, int]:
    """Row of every duplicate of a shard -> place of the document that came first; COPY for one of a copied one."""
    if wave is None:
        return {}
    begin, end = np.uint64(place_of(i, shard)), np.uint64(place_of(i, shard + 1))
    found: dict[int, int] = dict.fromkeys(copies.rows_of(work, i, shard).tolist(), COPY)
    for path in sorted(work.exact(wave).glob("[0-9]*")):
        if path.stat().st_size:
            listed = np.memmap(path, dtype=FOUND, mode="r")
            first, last = np.searchsorted(listed["place"], [begin, end])
            rows = (listed["place"][first:last] - begin).tolist()
            found.update(zip(rows, listed["first"][first:last].tolist(), strict=True))
    return found


def id_at(work: Work, place: int) -> str:
    """Id of the document at a place."""
    i, shard, row = shard_and_row(place)
    ends, ids = artifact.read_arrays(work.first(i, shard) / "ids", 2)
    return bytes(ids[ends[row]:ends[row + 1]]).decode("utf-8", "surrogatepass")


def _without_copies(work: Work, i: int, shard: int, records: np.ndarray) -> np.ndarray:
    """The records less those of copied repositories, so that none of them is the one that is kept."""
    rows = copies.rows_of(work, i, shard)
    places = np.uint64(place_of(i, shard)) + rows.astype(np.uint64)
    return records[~np.isin(records["place"], places)] if len(rows) else records


def _range(path: Path, group: int, groups: int) -> np.ndarray:
    """Records of a file whose digests lie in one of so many equal ranges."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=RECORD)
    listed = np.memmap(path, dtype=RECORD, mode="r")
    bounds = [(number << 64) // groups for number in (group, group + 1)]
    first = int(np.searchsorted(listed["key"], np.uint64(bounds[0])))
    last = len(listed) if group + 1 == groups else int(np.searchsorted(listed["key"], np.uint64(bounds[1])))
    return np.array(listed[first:last])
