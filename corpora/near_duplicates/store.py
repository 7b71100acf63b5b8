"""What is kept of every document while near-duplicates are looked for: one folder a shard, fixed-size records.

A document has a number: its shard in the upper 24 bits, its row in the shard in the lower 40. Numbers follow the
input; nothing that is published depends on them.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from corpora.document import BATCH_CHARS, BATCH_DOCUMENTS
from corpora.near_duplicates.settings import NearDuplicateSettings
from corpora.near_duplicates.shingles import hash_shingles
from corpora.near_duplicates.signatures import NO_SHINGLE, MinHasher
from corpora.near_duplicates.spill import RunWriter

BAND = np.dtype([("key", "<u8"), ("order", "<u8"), ("document", "<u8")])
"""One band of one document. `order` ranks documents as `keep_first` does, but for the last bits of the id."""
_ROW = np.dtype([("num_characters", "<u8"), ("id_end", "<u8"), ("shingles_end", "<u8")])
_ROW_BITS = 40
PIECE = BATCH_CHARS
"""Characters hashed at once. A longer document is cut there, so that memory is bounded; it loses the shingles that
lie across a cut, a few among a hundred thousand."""


class ShardWriter:
    """Signs the documents of one shard into a folder: their lengths, ids, signatures, bands, perhaps shingles."""

    def __init__(self, folder: Path, shard: int, settings: NearDuplicateSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._hasher = MinHasher(settings)
        self._next = shard << _ROW_BITS
        self._id_end = self._shingles_end = 0

    def write(self, documents: Iterable[tuple[str, str]]) -> None:
        """Read (id, text) to the end and write all files."""
        with (RunWriter(self._folder / "bands", BAND) as self._bands,
              (self._folder / "rows").open("wb") as self._rows,
              (self._folder / "ids").open("wb") as self._ids,
              (self._folder / "signatures").open("wb") as self._signatures,
              (self._folder / "shingles").open("wb") as self._shingles):
            for batch in _batches(documents):
                self._add(batch)

    def _add(self, batch: list[tuple[str, str]]) -> None:
        signatures = np.full((len(batch), self._settings.num_hashes), NO_SHINGLE, dtype=np.uint32)
        distinct: list[list[np.ndarray]] = [[] for _ in batch]
        has_words = np.zeros(len(batch), dtype=bool)
        for owners, pieces in _pieces(batch):
            shingles = hash_shingles(pieces, self._settings.num_words)
            first = np.flatnonzero(np.diff(owners, prepend=-1))
            least = np.minimum.reduceat(self._hasher.signatures(shingles), first, axis=0)
            signatures[owners[first]] = np.minimum(signatures[owners[first]], least)
            has_words[owners[np.diff(shingles.bounds) > 0]] = True
            if self._settings.threshold is not None:
                for i, owner in enumerate(owners.tolist()):
                    distinct[owner].append(np.unique(shingles.hashes[shingles.bounds[i]:shingles.bounds[i + 1]]))
        rows = np.zeros(len(batch), dtype=_ROW)
        for i, (name, text) in enumerate(batch):
            encoded = name.encode("utf-8", "surrogatepass")
            self._ids.write(encoded)
            self._id_end += len(encoded)
            if distinct[i]:
                whole = np.unique(np.concatenate(distinct[i])) if len(distinct[i]) > 1 else distinct[i][0]
                self._shingles.write(whole.astype("<u8").tobytes())
                self._shingles_end += len(whole)
            rows[i] = (len(text), self._id_end, self._shingles_end)
        self._rows.write(rows.tobytes())
        self._signatures.write(signatures.astype("<u4").tobytes())
        self._add_bands(batch, signatures, has_words)

    def _add_bands(self, batch: list[tuple[str, str]], signatures: np.ndarray, has_words: np.ndarray) -> None:
        keys = self._hasher.band_keys(signatures)[has_words]
        records = np.zeros(keys.shape, dtype=BAND)
        records["key"] = keys
        order = np.array([_order(name, text) for name, text in batch], dtype=np.uint64)
        records["order"] = order[has_words, None]
        numbers = self._next + np.arange(len(batch), dtype=np.uint64)
        records["document"] = numbers[has_words, None]
        self._next += len(batch)
        self._bands.add(records.reshape(-1))


class SignedShard:
    """A signed shard: sizes in memory, all else read when it is asked for."""

    def __init__(self, folder: Path, settings: NearDuplicateSettings) -> None:
        rows = np.fromfile(folder / "rows", dtype=_ROW)
        self._characters, self._id_ends, self._shingle_ends = (np.array(rows[name]) for name in _ROW.names or ())
        self._num_hashes = settings.num_hashes
        # Not mapped into memory: pages that were read would count as the process's own until somebody else wants them.
        self._ids, self._shingles, self._signatures = (
            _Reader(folder / name) for name in ("ids", "shingles", "signatures"))

    def __len__(self) -> int:
        return len(self._characters)

    def num_characters(self, row: int) -> int:
        """Length of the text."""
        return int(self._characters[row])

    def total_characters(self) -> int:
        """Length of all texts."""
        return int(self._characters.sum())

    def id(self, row: int) -> str:
        """Id as it was read."""
        return self._ids.read(*_part(self._id_ends, row), 1).decode("utf-8", "surrogatepass")

    def signature(self, row: int) -> np.ndarray:
        """Signature, uint32 `[num_hashes]`."""
        return np.frombuffer(self._signatures.read(row, row + 1, 4 * self._num_hashes), dtype="<u4")

    def shingles(self, row: int) -> np.ndarray:
        """Distinct shingle hashes, sorted; kept only where there is a threshold."""
        return np.frombuffer(self._shingles.read(*_part(self._shingle_ends, row), 8), dtype="<u8")


class _Reader:
    """A file that is read in places, and closed when nobody holds this object any longer."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)

    def read(self, begin: int, end: int, size: int) -> bytes:
        """Items of so many bytes from `begin` to before `end`."""
        return os.pread(self._number, (end - begin) * size, begin * size)

    def __del__(self) -> None:
        os.close(self._number)


def _part(ends: np.ndarray, row: int) -> tuple[int, int]:
    return int(ends[row - 1]) if row else 0, int(ends[row])


class SignedShards:
    """All signed shards of a search; a few of them open at a time."""

    def __init__(self, folders: list[Path], settings: NearDuplicateSettings) -> None:
        # It must not hold this object: files of a circle are closed when the garbage is collected, if ever.
        self._open = functools.lru_cache(maxsize=64)(lambda shard: SignedShard(folders[shard], settings))

    def find(self, document: int) -> tuple[SignedShard, int]:
        """The shard that holds a document, and its row there."""
        shard, row = split_number(document)
        return self._open(shard), row


def split_number(document: int) -> tuple[int, int]:
    """Shard and row of a document's number."""
    return document >> _ROW_BITS, document & ((1 << _ROW_BITS) - 1)


def keep_first(num_characters: int, name: str) -> tuple[int, bytes]:
    """The rule of precedence where nothing else decides: the least goes first: the longest text, then the least id."""
    return -num_characters, name.encode("utf-8", "surrogatepass")


def _order(name: str, text: str) -> int:
    """24 bits of the length, longest first, and 40 of the id's hash: a rank that needs no other document."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=5).digest()
    return (2**24 - 1 - min(len(text), 2**24 - 1)) << 40 | int.from_bytes(digest, "little")


def _batches(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    num_chars = 0
    for name, text in documents:
        batch.append((name, text))
        num_chars += len(text)
        if num_chars >= BATCH_CHARS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _pieces(batch: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """The texts of a batch in pieces of at most `PIECE` characters, about two of those at a time, with their row."""
    owners: list[int] = []
    pieces: list[str] = []
    num_chars = 0
    for row, (_, text) in enumerate(batch):
        for begin in range(0, max(len(text), 1), PIECE):
            pieces.append(text[begin:begin + PIECE])
            owners.append(row)
            num_chars += len(pieces[-1])
            if num_chars >= 2 * PIECE:
                yield np.array(owners), pieces
                owners, pieces, num_chars = [], [], 0
    if pieces:
        yield np.array(owners), pieces
