"""Records and lines that are too many for memory: sorted runs on disk, read back by ranges of their keys.

A record is a row of a numpy structured type whose field `key` is an evenly spread uint64 (a hash). Records go to one
file in runs of at most `RUN_RECORDS`, each sorted by key, with a table of where every prefix of the key begins. All
records of a range of prefixes, over all files, are then read by one seek a run: this takes the place of a merge.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from corpora.artifact import publish, write_arrays

__all__ = ["RunWriter", "groups", "publish", "read_group", "sorted_lines"]
PREFIX_BITS = 12
NUM_PREFIXES = 1 << PREFIX_BITS
RUN_RECORDS = 1_000_000
"""Records held before a run is written: 24 MB of them, about 100 MB while they are sorted."""
GROUP_RECORDS = 2_000_000
"""Records read back at once. More only when one prefix alone holds more (above 8 * 10^9 records, or one key
that so many documents share)."""
SORTED_LINES = 200_000
"""Lines sorted in memory at once."""


class RunWriter:
    """Writes records to PATH and the tables of their prefixes to PATH.index."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._path = path
        self._file = path.open("wb")
        self._held: list[np.ndarray] = []
        self._num_held = 0
        self._tables: list[np.ndarray] = []
        self._dtype = dtype

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self._write_run()
            tables = np.array(self._tables, dtype=np.int64).reshape(-1, NUM_PREFIXES + 1)
            write_arrays(index_path(self._path), [tables])
        self._file.close()

    def add(self, records: np.ndarray) -> None:
        """Append records, in any order."""
        self._held.append(records)
        self._num_held += len(records)
        if self._num_held >= RUN_RECORDS:
            self._write_run()

    def _write_run(self) -> None:
        if not self._num_held:
            return
        records = np.concatenate(self._held)
        self._held, self._num_held = [], 0
        records = records[np.argsort(records["key"], kind="stable")]
        counts = np.bincount((records["key"] >> np.uint64(64 - PREFIX_BITS)).astype(np.int64), minlength=NUM_PREFIXES)
        begin = self._file.tell() // self._dtype.itemsize
        self._tables.append(begin + np.concatenate(([0], np.cumsum(counts))))
        self._file.write(records.tobytes())


def index_path(path: Path) -> Path:
    """Where the tables of a file of runs lie."""
    return path.with_name(path.name + ".index")


def groups(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Ranges of prefixes, from first to before last, that together hold every record, each about `GROUP_RECORDS`."""
    counts = np.zeros(NUM_PREFIXES, dtype=np.int64)
    for path in paths:
        counts += np.diff(np.load(index_path(path)), axis=1).sum(axis=0)
    found, first, held = [], 0, 0
    for prefix, count in enumerate(counts.tolist()):
        if held and held + count > GROUP_RECORDS:
            found.append((first, prefix))
            first, held = prefix, 0
        held += count
    if held:
        found.append((first, NUM_PREFIXES))
    return found


def read_group(paths: Sequence[Path], dtype: np.dtype, first: int, last: int) -> np.ndarray:
    """All records of the prefixes from `first` to before `last`, in no particular order."""
    parts = [np.zeros(0, dtype=dtype)]
    for path in paths:
        with path.open("rb") as file:
            for table in np.load(index_path(path)):
                count = int(table[last] - table[first])
                if count:
                    file.seek(int(table[first]) * dtype.itemsize)
                    parts.append(np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype))
    return np.concatenate(parts)


def sorted_lines(lines: Iterable[bytes], folder: Path) -> Iterator[bytes]:
    """The lines (each with its line end) in byte order, from sorted files below `folder`, which must not exist."""
    folder.mkdir()
    held: list[bytes] = []
    num_files = 0

    def spill() -> None:
        nonlocal num_files
        (folder / str(num_files)).write_bytes(b"".join(sorted(held)))
        num_files += 1
        held.clear()

    for line in lines:
        held.append(line)
        if len(held) >= SORTED_LINES:
            spill()
    spill()
    with ExitStack() as stack:
        yield from heapq.merge(*(stack.enter_context((folder / str(i)).open("rb")) for i in range(num_files)))
    shutil.rmtree(folder)
