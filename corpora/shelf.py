"""Clean records on disk, so that a corpus may be larger than memory: each part written by one task, all read by one.

A record is what is written to the product: the token ids of a document, or one JSON line. The reader holds its place,
its size in tokens and its document in memory (20 bytes a record, and 12 for each question).
"""

from __future__ import annotations

import functools
import os
import resource
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from corpora import artifact


class Shelf:
    """One part: records that are appended to FOLDER/records; `finish` writes FOLDER/index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / "records").open("wb")
        self._ends = array("q")
        self._num_tokens = array("q")
        self._documents = array("q")
        self._question_hashes = array("Q")
        self._question_documents = array("q")
        self._size = 0
        self.num_documents = 0
        self.num_tokens = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, records: list[bytes], num_tokens: list[int], question_hashes: list[int]) -> None:
        """Append one document: its records (pieces), the tokens in each, and the hashes of its questions."""
        for record, count in zip(records, num_tokens, strict=True):
            self._file.write(record)
            self._size += len(record)
            self._ends.append(self._size)
            self._num_tokens.append(count)
            self._documents.append(self.num_documents)
            self.num_tokens += count
        for question_hash in question_hashes:
            self._question_hashes.append(question_hash)
            self._question_documents.append(self.num_documents)
        self.num_documents += 1

    def finish(self) -> None:
        """Write what says where the records are."""
        self._file.flush()
        artifact.write_arrays(self._folder / "index", [np.array(one, dtype=one.typecode) for one in (
            self._ends, self._num_tokens, self._documents, self._question_hashes, self._question_documents)])


class Shelves:
    """All parts of one source, in order; a record is known by its number over all of them."""

    def __init__(self, folders: Sequence[Path], num_documents: Sequence[int]) -> None:
        """Args: num_documents: In each part (`Shelf.num_documents`)."""
        self.num_documents = sum(num_documents)
        ends, lengths, documents, hashes, owners, sizes = [], [], [], [], [], [0]
        first = 0
        for folder, num in zip(folders, num_documents, strict=True):
            part = artifact.read_arrays(folder / "index", 5)
            ends.append(part[0])
            lengths.append(part[1].astype(np.int32))
            documents.append((part[2] + first).astype(np.uint32))
            hashes.append(part[3])
            owners.append((part[4] + first).astype(np.uint32))
            sizes.append(sizes[-1] + len(part[0]))
            first += num
        self._ends = _joined(ends, np.int64)
        self._lengths = _joined(lengths, np.int32)
        self._documents = _joined(documents, np.uint32)
        self._question_hashes = _joined(hashes, np.uint64)
        self._question_documents = _joined(owners, np.uint32)
        self._begins = np.array(sizes, dtype=np.int64)
        """Number of the first record of each part, and of all."""
        self.num_tokens = int(self._lengths.sum(dtype=np.int64))
        most_open = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4, 16)
        # It must not hold this object: files of a circle are closed when the garbage is collected, if ever.
        self._open = functools.lru_cache(maxsize=most_open)(lambda part: _Open(folders[part] / "records"))

    def lengths(self) -> np.ndarray:
        """Tokens in each record (int32)."""
        return self._lengths

    def read(self, i: int) -> bytes:
        """Record i."""
        part = int(np.searchsorted(self._begins, i, side="right")) - 1
        begin = int(self._ends[i - 1]) if i > self._begins[part] else 0
        # Not mapped into memory: pages that were read would count as the process's own until somebody else wants them.
        return os.pread(self._open(part).number, int(self._ends[i]) - begin, begin)

    def num_documents_in(self, records: np.ndarray) -> int:
        """Distinct documents that these records belong to."""
        return int(np.count_nonzero(self._used(records)))

    def questions_in(self, records: np.ndarray) -> set[int]:
        """Hashes of the questions of the documents that these records belong to."""
        return set(self._question_hashes[self._used(records)[self._question_documents]].tolist())

    def _used(self, records: np.ndarray) -> np.ndarray:
        used = np.zeros(self.num_documents, dtype=bool)
        used[self._documents[records]] = True
        return used


class _Open:
    """A file that is closed when nobody holds this object any longer."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


def _joined(parts: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
