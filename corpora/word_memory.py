"""Words as numbers: a hash table in arrays, looked up for hundreds of thousands of words in one go, exactly.

A word is a run of bytes. It is hashed eight bytes at a time; the hash leads to candidates, and a candidate counts only
if its size and its bytes are the word's, so that a collision of hashes can never give another word's number. (Every
step of the hash is a bijection of the state for given bytes: equal hashes, sizes and equal bytes from the ninth on make
the first eight equal too. So the bytes of short words need not be kept.)
"""

from __future__ import annotations

import numpy as np

UNKNOWN = 0
"""What a word that was not learnt yet gets; the first one that is learnt has number 1."""
LONGEST = 128
"""Bytes from which a word is not for this memory: such words hardly come again, and every eight bytes cost a turn."""
PADDING = 8
"""Bytes that must follow the last word of a text, so that a load at its end stays inside."""
_FIRST_BITS = 12
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
"""Odd, with about as many ones as zeros among their bits; the first is 2^64 over the golden ratio."""
_HALF = np.uint64(32)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


class WordMemory:
    """Distinct words, numbered in the order in which they were learnt."""

    def __init__(self) -> None:
        self.num_words = 0
        self._hashes = np.zeros(1 << _FIRST_BITS, dtype=np.uint64)
        self._sizes = np.zeros(1 << _FIRST_BITS, dtype=np.int32)
        self._places = np.zeros(1 << _FIRST_BITS, dtype=np.int64)
        """Where a word of more than eight bytes lies in `_bytes`."""
        self._bytes = np.zeros(1 << _FIRST_BITS, dtype=np.uint8)
        self._bytes_end = 0
        self._make_table(_FIRST_BITS + 2)

    def look_up(self, content: bytes, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Numbers of the words `content[start:start + size]`, of 1 to `LONGEST - 1` bytes; `UNKNOWN` for new ones.

        Args:
            content: Bytes, with `PADDING` more after the last word.
        """
        hashes = _hash(content, starts, sizes)
        slots = (hashes >> self._shift).astype(np.int64)
        numbers = self._table[slots]
        wrong = self._is_other(numbers, content, hashes, starts, sizes)
        while len(wrong):  # the next slot, until the word or an empty slot
            slots[wrong] = (slots[wrong] + 1) & self._last_slot
            numbers[wrong] = self._table[slots[wrong]]
            rows = wrong[numbers[wrong] != UNKNOWN]
            wrong = rows[self._is_other(numbers[rows], content, hashes[rows], starts[rows], sizes[rows])]
        return numbers

    def learn(self, content: bytes, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Number words that are unknown so far and may be given several times.

        Returns:
            Rows of the words that were learnt, each once, in the order of their numbers. (Of different words with one
            hash only the first is; the others are still unknown.)
        """
        hashes = _hash(content, starts, sizes)
        rows = np.sort(np.unique(hashes, return_index=True)[1])
        numbers = self.num_words + 1 + np.arange(len(rows))
        self._reserve(self.num_words + 1 + len(rows))
        self._hashes[numbers], self._sizes[numbers] = hashes[rows], sizes[rows]
        self._keep_bytes(content, numbers, starts[rows], sizes[rows])
        self._insert(numbers)
        self.num_words += len(rows)
        return rows

    def _is_other(self, numbers: np.ndarray, content: bytes, hashes: np.ndarray, starts: np.ndarray,
                  sizes: np.ndarray) -> np.ndarray:
        """Rows whose candidate is another word."""
        differs = (self._hashes[numbers] != hashes) | (self._sizes[numbers] != sizes)
        differs &= numbers != UNKNOWN
        rows = np.flatnonzero((sizes > 8) & ~differs & (numbers != UNKNOWN))
        eight, kept = _eight_bytes(content), _eight_bytes(self._bytes)
        at = 8
        while len(rows):
            places = self._places[numbers[rows]] + at
            same = ((eight[starts[rows] + at] ^ kept[places]) & _MASKS[np.minimum(sizes[rows] - at, 8)]) == 0
            differs[rows[~same]] = True
            at += 8
            rows = rows[same & (sizes[rows] > at)]
        return np.flatnonzero(differs)

    def _keep_bytes(self, content: bytes, numbers: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        rows = np.flatnonzero(sizes > 8)
        ends = self._bytes_end + np.cumsum(sizes[rows])
        end = int(ends[-1]) if len(rows) else self._bytes_end
        if end + PADDING > len(self._bytes):
            self._bytes = _grown(self._bytes, end + PADDING)
        words = [content[start : start + size] for start, size in zip(starts[rows].tolist(), sizes[rows].tolist(),
                                                                      strict=True)]
        self._bytes[self._bytes_end : end] = np.frombuffer(b"".join(words), dtype=np.uint8)
        self._places[numbers[rows]] = ends - sizes[rows]
        self._bytes_end = end

    def _reserve(self, size: int) -> None:
        if size > len(self._hashes):
            self._hashes, self._sizes, self._places = (
                _grown(array, size) for array in (self._hashes, self._sizes, self._places))
        if 2 * size > len(self._table):
            self._make_table((4 * size - 1).bit_length())

    def _make_table(self, bits: int) -> None:
        """A table of 2^bits slots, with the words that there are."""
        self._table = np.zeros(1 << bits, dtype=np.int32)
        self._shift, self._last_slot = np.uint64(64 - bits), (1 << bits) - 1
        self._insert(1 + np.arange(self.num_words))

    def _insert(self, numbers: np.ndarray) -> None:
        slots = (self._hashes[numbers] >> self._shift).astype(np.int64)
        while len(numbers):
            free = self._table[slots] == UNKNOWN
            self._table[slots[free]] = numbers[free]
            left = self._table[slots] != numbers
            numbers, slots = numbers[left], (slots[left] + 1) & self._last_slot


def _hash(content: bytes, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """One hash per word, of its size and its bytes."""
    eight = _eight_bytes(content)
    hashes: np.ndarray = sizes.astype(np.uint64)
    hashes *= _FACTOR
    hashes ^= eight[starts] & _MASKS[np.minimum(sizes, 8)]
    _mix(hashes)
    rows = np.flatnonzero(sizes > 8)
    at = 8
    while len(rows):
        more = hashes[rows] ^ (eight[starts[rows] + at] & _MASKS[np.minimum(sizes[rows] - at, 8)])
        _mix(more)
        hashes[rows] = more
        at += 8
        rows = rows[sizes[rows] > at]
    return hashes


def _mix(hashes: np.ndarray) -> None:
    """A bijection that spreads every bit over all others, in place."""
    hashes ^= hashes >> _HALF
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _HALF


def _eight_bytes(content: bytes | np.ndarray) -> np.ndarray:
    """The number that the eight bytes from each place on make, little end first; overlapping, nothing is copied."""
    return np.ndarray((max(len(content) - 7, 0),), dtype="<u8", buffer=content, strides=(1,))


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """The array with room for at least `size` elements; doubled, so that growing costs little in all."""
    larger = np.zeros(max(2 * len(array), size), dtype=array.dtype)
    larger[: len(array)] = array
    return larger
