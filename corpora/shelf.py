"""Clean records of one source on disk, so that a corpus may be larger than memory.

A record is what is written to the product: the token ids of a document, or one JSON line. Per record only its
place, its size in tokens and its document are held in memory (24 bytes).
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from types import TracebackType

import numpy as np


class Shelf:
    """Append-only records in one file; read back by number once `finish` was called."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._path = path
        self._offsets = array("q", [0])
        self._num_tokens = array("q")
        self._documents = array("q")
        self._question_hashes = array("Q")
        self._question_documents = array("q")
        self.num_documents = 0
        self.num_tokens = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, records: list[bytes], num_tokens: list[int], question_hashes: list[int]) -> None:
        """Append one document: its records (pieces), the tokens in each, and the hashes of its questions."""
        for record, count in zip(records, num_tokens, strict=True):
            self._file.write(record)
            self._offsets.append(self._offsets[-1] + len(record))
            self._num_tokens.append(count)
            self._documents.append(self.num_documents)
            self.num_tokens += count
        for question_hash in question_hashes:
            self._question_hashes.append(question_hash)
            self._question_documents.append(self.num_documents)
        self.num_documents += 1

    def finish(self) -> None:
        """End of writing; records can be read from here on."""
        self._file.flush()

    def lengths(self) -> np.ndarray:
        """Tokens in each record (int64)."""
        return np.array(self._num_tokens, dtype=np.int64)

    def read(self, i: int) -> bytes:
        """Record i."""
        # Not mapped into memory: pages that were read would count as the process's own until somebody else wants them.
        return os.pread(self._file.fileno(), self._offsets[i + 1] - self._offsets[i], self._offsets[i])

    def num_documents_in(self, records: np.ndarray) -> int:
        """Distinct documents that these records belong to."""
        return len(np.unique(np.array(self._documents, dtype=np.int64)[records]))

    def questions_in(self, records: np.ndarray) -> set[int]:
        """Hashes of the questions of the documents that these records belong to."""
        used = np.zeros(self.num_documents, dtype=bool)
        used[np.array(self._documents, dtype=np.int64)[records]] = True
        owners = np.array(self._question_documents, dtype=np.int64)
        return set(np.array(self._question_hashes, dtype=np.uint64)[used[owners]].tolist())
