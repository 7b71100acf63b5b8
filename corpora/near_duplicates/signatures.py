"""MinHash signatures and their band keys.

Broder 1997 (On the resemblance and containment of documents): under a random order of all shingles, two sets have
the same least element with a chance equal to their Jaccard similarity. A signature holds the least value under each
of `num_hashes` orders. An order is x -> a x modulo 2^32 with an odd random a, x being 32 well-mixed bits of the
shingle's hash: a bijection whose high bits, which decide the minimum, depend on all bits of x. Such linear orders are
not exactly min-wise independent (Broder and others 1998, Min-wise independent permutations, section 4), so the tests
compare their estimates with the binomial that ideal ones would give.

With 32 bits two different shingles collide with a chance of 2^-32: in a document of a million shingles about 116
pairs do, which moves an estimate by 10^-4.
"""

from __future__ import annotations

import numpy as np

from corpora.near_duplicates.settings import NearDuplicateSettings
from corpora.near_duplicates.shingles import Words

_AT_ONCE = 16_384
"""Shingles hashed at once: 64 KiB, which stay in a core's cache through all orders."""
NO_SHINGLE = np.uint32(0xFFFFFFFF)
"""All places of the signature of a text without words."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class MinHasher:
    """The orders of one search; equal settings give equal signatures everywhere."""

    def __init__(self, settings: NearDuplicateSettings) -> None:
        self.settings = settings
        draw = np.random.Generator(np.random.PCG64([settings.seed, settings.num_hashes]))
        self._factors = draw.integers(0, 2**31, settings.num_hashes, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._band_seeds = draw.integers(0, 2**63, settings.num_bands, dtype=np.uint64)

    def signatures(self, shingles: Words) -> np.ndarray:
        """Signatures, uint32 `[texts, num_hashes]`; all ones for a text without shingles."""
        has_some = np.flatnonzero(np.diff(shingles.bounds))
        bounds = np.append(shingles.bounds[has_some], shingles.bounds[-1])
        values = (shingles.hashes >> _HALF).astype(np.uint32)
        least = np.full((len(self._factors), len(has_some)), NO_SHINGLE, dtype=np.uint32)
        ordered = np.empty(min(_AT_ONCE, len(values)), dtype=np.uint32)
        for begin in range(0, len(values), _AT_ONCE):
            part = values[begin:begin + _AT_ONCE]
            first = int(np.searchsorted(bounds, begin, side="right")) - 1
            last = int(np.searchsorted(bounds, begin + len(part), side="left"))
            cuts = np.maximum(bounds[first:last] - begin, 0)
            target, scratch = least[:, first:last], ordered[:len(part)]
            for row, factor in zip(target, self._factors, strict=True):
                np.multiply(part, factor, out=scratch)
                np.minimum(row, np.minimum.reduceat(scratch, cuts), out=row)
        signatures = np.full((len(shingles.bounds) - 1, len(self._factors)), NO_SHINGLE, dtype=np.uint32)
        signatures[has_some] = least.T
        return signatures

    def band_keys(self, signatures: np.ndarray) -> np.ndarray:
        """One uint64 per band, `[texts, num_bands]`; equal for equal rows of the same band, and for no others but by
        a chance of 2^-64."""
        rows = signatures.reshape(-1, self.settings.num_bands, self.settings.num_rows)
        keys = np.broadcast_to(self._band_seeds, rows.shape[:2]).copy()
        for i in range(self.settings.num_rows):
            keys ^= rows[:, :, i]
            keys *= _MULTIPLIER
            keys ^= keys >> _HALF
        return keys


def estimated_jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Share of equal places of two signatures: unbiased, standard deviation sqrt(J (1 - J) / num_hashes)."""
    return float(np.mean(one == other))
