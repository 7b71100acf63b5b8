"""Finds word n-grams of a fixed set in many texts at once, exactly and at tens of megabytes a second on one core.

A text is brought to canonical form (lower case, only letters and digits, one space between words). The canonical
texts of a batch are laid side by side, and one polynomial hash modulo 2^64 of every n-gram is taken from prefix
sums (Karp and Rabin 1987, doi 10.1147/rd.312.0249). A hash that falls into a bit table is a candidate; each
candidate is then compared with the real n-gram, so that a collision of hashes can never mark a text.

Scripts that put no spaces between words (Chinese, Thai) make few and long words here: their texts are matched only
by whole sentences.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

_ASCII_TO_WORDS = bytes(byte if chr(byte).isalnum() and byte < 128 else 32 for byte in range(256))
_NOT_A_WORD = re.compile(r"[\W_]+")
_BASE = 0x5851F42D4C957F2D
"""Odd, so that it has an inverse modulo 2^64."""
_WORD_BITS = 64
_BUILD_AT_ONCE = 10_000
_TABLE_ROOM = 16
"""Table entries per n-gram: about one span in so many is a candidate by chance."""
_SMALLEST_TABLE_BITS = 18


def canonical(text: str) -> bytes:
    """Case folded, NFKC, letters and digits only, words parted by single spaces, as UTF-8."""
    if text.isascii():
        return b" ".join(text.encode("ascii").lower().translate(_ASCII_TO_WORDS).split())
    plain = _NOT_A_WORD.sub(" ", unicodedata.normalize("NFKC", text.casefold()).casefold())
    return b" ".join(plain.encode("utf-8", "replace").split())


def word_ngrams(text: bytes, num_words: int) -> list[bytes]:
    """All runs of `num_words` words of a canonical text; none when it is shorter."""
    words = text.split()
    return [b" ".join(words[i:i + num_words]) for i in range(len(words) - num_words + 1)]


class WordBatch:
    """Canonical texts side by side in one buffer, with the place of every word and the prefix sums of their hash."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.num_texts = len(texts)
        self.buffer = np.frombuffer(b"\n".join(texts), dtype=np.uint8)
        is_space = np.concatenate(([True], self.buffer <= 32, [True]))
        edges = np.flatnonzero(is_space[1:] != is_space[:-1])
        self._starts, self._ends = edges[0::2], edges[1::2]
        self._owners = np.searchsorted(np.cumsum([len(text) + 1 for text in texts]), self._starts, side="right")
        powers, self._inverse_powers = _powers(len(self.buffer))
        self._prefix = np.zeros(len(self.buffer) + 1, dtype=np.uint64)
        np.cumsum((self.buffer.astype(np.uint64) + np.uint64(1)) * powers, out=self._prefix[1:])

    def spans(self, num_words: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First byte, end, and text of every run of `num_words` words that lies in one text."""
        num_spans = max(len(self._starts) - num_words + 1, 0)
        last = slice(num_words - 1, num_words - 1 + num_spans)
        whole = self._owners[:num_spans] == self._owners[last]
        return self._starts[:num_spans][whole], self._ends[last][whole], self._owners[:num_spans][whole]

    def slots(self, starts: np.ndarray, ends: np.ndarray, num_bits: int) -> np.ndarray:
        """Place of every span in a table of 2^num_bits entries."""
        hashes = (self._prefix[ends] - self._prefix[starts]) * self._inverse_powers[starts]
        # The low bits of a product depend on low bits only; fold the high ones in before the top bits are taken.
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        slots: np.ndarray = hashes >> np.uint64(_WORD_BITS - num_bits)
        return slots


class NgramIndex:
    """A set of n-grams of `num_words` words, each with the name of what it was taken from."""

    def __init__(self, ngrams: Iterable[tuple[bytes, str]], num_words: int) -> None:
        self.num_words = num_words
        self._names: dict[bytes, str] = {}
        for ngram, name in ngrams:
            self._names.setdefault(ngram, name)
        self._table_bits = max((_TABLE_ROOM * len(self._names)).bit_length(), _SMALLEST_TABLE_BITS)
        self._table = np.zeros(1 << self._table_bits, dtype=bool)
        everything = list(self._names)
        for first in range(0, len(everything), _BUILD_AT_ONCE):
            batch = WordBatch(everything[first:first + _BUILD_AT_ONCE])
            starts, ends, _ = batch.spans(num_words)
            self._table[batch.slots(starts, ends, self._table_bits)] = True

    def __len__(self) -> int:
        return len(self._names)

    def find(self, batch: WordBatch) -> list[tuple[str, bytes] | None]:
        """For each text of the batch the first n-gram of the set that it holds, with its name, or None."""
        found: list[tuple[str, bytes] | None] = [None] * batch.num_texts
        if not self._names:
            return found
        starts, ends, owners = batch.spans(self.num_words)
        for i in np.flatnonzero(self._table[batch.slots(starts, ends, self._table_bits)]):
            if found[owners[i]] is None:
                ngram = batch.buffer[starts[i]:ends[i]].tobytes()
                if ngram in self._names:
                    found[owners[i]] = (self._names[ngram], ngram)
        return found


def _powers(num: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `num` powers of the base and of its inverse, modulo 2^64; kept, as batches are of like size."""
    size = 1 << max(num, 1).bit_length()
    return _powers_of(_BASE, size)[:num], _powers_of(pow(_BASE, -1, 1 << _WORD_BITS), size)[:max(num, 1)]


@functools.lru_cache(maxsize=4)
def _powers_of(base: int, size: int) -> np.ndarray:
    factors = np.full(size, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
