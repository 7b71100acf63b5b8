"""Texts to the 64-bit hashes of their word n-grams (shingles), at tens of megabytes a second on one core.

Words are runs of letters and digits, case folded and NFKC, as in `corpora/ngrams.py`; Han characters, kana and Thai
letters, which stand without spaces, are a word each. All the rest (punctuation, operators, indentation, line ends)
parts words and does not count: `a + b` and `a - b` are near-duplicates of one another, though never exact ones.

A batch of texts is laid side by side in one buffer. A word of up to eight bytes is read with one unaligned 64-bit
load per word, a longer one with one more for every further eight; the words' hashes are then folded into the hash of
every n-gram (a polynomial modulo 2^64 and a last mixing step), so that no Python object is made per word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpora.ngrams import canonical

_TO_WORDS = bytes(ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else byte if byte >= 128 else 32
                  for byte in range(256))
_WITHOUT_SPACES = re.compile("([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_LONG_WORD = 256
"""Bytes above which a word (encoded data) is hashed on its own: the vectorised loop turns once per eight bytes."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
"""Odd, with about as many ones as zeros among their bits; the first is 2^64 over the golden ratio."""
_HALF = np.uint64(32)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


@dataclass(frozen=True)
class Words:
    """The words of a batch of texts.

    Attributes:
        hashes: One uint64 per word, text after text.
        bounds: `num_texts + 1` places: the words of text i are `hashes[bounds[i]:bounds[i + 1]]`.
    """

    hashes: np.ndarray
    bounds: np.ndarray


def hash_words(texts: Sequence[str]) -> Words:
    """The hash of every word of every text; equal words have equal hashes in all texts, batches and processes."""
    parts = [_plain(text) for text in texts]
    # Eight more bytes, so that a load at the last word stays in the buffer.
    content = (b" ".join(parts) + b" " * 9).translate(_TO_WORDS)
    sizes = np.fromiter((len(part) + 1 for part in parts), dtype=np.int64, count=len(parts))
    is_word = np.frombuffer(content, dtype=np.uint8) != 32
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    if is_word[0]:
        edges = np.concatenate(([0], edges))
    starts, ends = edges[0::2], edges[1::2]
    bounds = np.concatenate(([0], np.searchsorted(starts, np.cumsum(sizes))))
    return Words(_hash_spans(content, starts, ends), bounds)


def hash_shingles(texts: Sequence[str], num_words: int) -> Words:
    """The hash of every run of `num_words` words of every text, in order, repeated ones repeatedly.

    A text of fewer words has one shingle, all its words; one without words has none.
    """
    words = hash_words(texts)
    return Words(*_fold(words, num_words))


def _plain(text: str) -> bytes:
    """The text with everything but words made space, ASCII still in its own case."""
    if text.isascii():
        return text.encode("ascii")
    return canonical(_WITHOUT_SPACES.sub(r" \1 ", text))


def _hash_spans(content: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """One hash per span of bytes, which depends on all its bytes and its length."""
    sizes = ends - starts
    eight_bytes = np.ndarray((len(content) - 7,), dtype="<u8", buffer=content, strides=(1,))
    hashes: np.ndarray = sizes.astype(np.uint64)
    hashes *= _FACTOR
    hashes ^= eight_bytes[starts] & _MASKS[np.minimum(sizes, 8)]
    _mix(hashes)
    rows = np.flatnonzero(sizes > 8)
    at = 8
    while len(rows) and at < _LONG_WORD:
        more = hashes[rows] ^ (eight_bytes[starts[rows] + at] & _MASKS[np.minimum(sizes[rows] - at, 8)])
        _mix(more)
        hashes[rows] = more
        at += 8
        rows = rows[sizes[rows] > at]
    for row in rows.tolist():
        digest = hashlib.blake2b(content[starts[row]:ends[row]], digest_size=8).digest()
        hashes[row] = int.from_bytes(digest, "little")
    return hashes


def _fold(words: Words, num_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and bounds of the n-grams."""
    first, counts = words.bounds[:-1], np.diff(words.bounds)
    num_spans = np.maximum(counts - num_words + 1, np.minimum(counts, 1))
    bounds = np.concatenate(([0], np.cumsum(num_spans)))
    # Word i starts a shingle where the whole run lies in its text; a short text's first word starts its only one.
    is_start = np.ones(len(words.hashes), dtype=bool)
    for back in range(1, num_words):
        ends = words.bounds[1:][counts > back] - back
        is_start[ends] = False
    padded = np.concatenate((words.hashes, np.zeros(num_words - 1, dtype=np.uint64)))
    size = len(words.hashes)
    folded = padded[:size].copy()
    for step in range(1, num_words):
        folded *= _FACTOR
        folded += padded[step:step + size]
    for text in np.flatnonzero((counts > 0) & (counts < num_words)).tolist():
        value = 0
        for word in words.hashes[first[text]:words.bounds[text + 1]].tolist():
            value = (value * int(_FACTOR) + word + 1) % 2**64
        folded[first[text]] = value
    _mix(folded)
    return folded[is_start], bounds


def _mix(hashes: np.ndarray) -> None:
    """Spread every bit over all higher and, by the fold, lower ones, in place."""
    hashes ^= hashes >> _HALF
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _HALF
