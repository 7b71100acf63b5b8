"""From bands to links: which documents share a band, and, on demand, which of those are as similar as the threshold.

Without a threshold every document of a bucket (the documents that share one band) is linked to the one that comes
first by the rule of precedence: the same connected components as all pairs would give. With a threshold each is
compared with the first one and with the `WINDOW` before it, so that a bucket of n documents costs n comparisons and
not n^2; a pair further apart in a larger bucket is compared only where another band brings it together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from corpora.near_duplicates.spill import RunWriter, read_group
from corpora.near_duplicates.store import BAND, SignedShards

WINDOW = 32
"""Documents before it in its bucket with which each is compared, when there is a threshold."""
PAIR = np.dtype([("key", "<u8"), ("first", "<u8"), ("second", "<u8")])
"""A pair of documents, `first` preceding; `key` spreads the pairs evenly and brings equal ones together."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def read_buckets(paths: Sequence[Path], first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Bands of a range of prefixes, sorted by key, then precedence, without those that stand alone in their bucket.

    Returns:
        The records (`BAND`), and for each the place where its bucket begins.
    """
    bands = read_group(paths, BAND, first, last)
    # Few bands share their key: find those by the keys alone, and sort only them in full.
    by_key = np.argsort(bands["key"])
    keys = bands["key"][by_key]
    same = keys[1:] == keys[:-1]
    shared = (np.append(same, False) | np.insert(same, 0, False))[:len(bands)]
    bands = bands[by_key[shared]]
    bands = bands[np.lexsort((bands["document"], bands["order"], bands["key"]))]
    is_first = np.append(True, bands["key"][1:] != bands["key"][:-1])[:len(bands)]
    begins = np.maximum.accumulate(np.where(is_first, np.arange(len(bands)), 0))
    return bands, begins


def link_first(bands: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Links, uint64 `[links, 2]`: each document of a bucket to the bucket's first."""
    others = np.flatnonzero(begins != np.arange(len(bands)))
    return np.unique(np.stack((bands["document"][begins[others]], bands["document"][others]), axis=1), axis=0)


def write_pairs(bands: np.ndarray, begins: np.ndarray, path: Path) -> None:
    """The pairs that are to be compared, as runs of `PAIR`; a pair of several buckets comes several times."""
    places = np.arange(len(bands))
    with RunWriter(path, PAIR) as writer:
        for step in range(1, WINDOW + 1):
            later = places[begins + step <= places]
            writer.add(_pairs(bands, later - step, later))
        later = places[begins + WINDOW < places]
        writer.add(_pairs(bands, begins[later], later))


def read_pairs(paths: Sequence[Path], first: int, last: int) -> np.ndarray:
    """Pairs of a range of prefixes, uint64 `[pairs, 2]`, each once, sorted."""
    pairs = read_group(paths, PAIR, first, last)
    return np.unique(np.stack((pairs["first"], pairs["second"]), axis=1), axis=0)


def similar(pairs: np.ndarray, shards: SignedShards, threshold: float) -> np.ndarray:
    """Those pairs whose exact Jaccard similarity reaches the threshold."""
    keep = np.zeros(len(pairs), dtype=bool)
    held, ours = -1, np.zeros(0, dtype=np.uint64)
    for i, (one, other) in enumerate(pairs.tolist()):
        if one != held:
            shard, row = shards.find(one)
            held, ours = one, np.array(shard.shingles(row))
        shard, row = shards.find(other)
        theirs = shard.shingles(row)
        if min(len(ours), len(theirs)) >= threshold * max(len(ours), len(theirs)):
            keep[i] = exact_jaccard(ours, theirs) >= threshold
    return pairs[keep]


def exact_jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard similarity of two sets of shingles, each sorted and distinct; 0 for two empty ones."""
    if not len(one) or not len(other):
        return 0.0
    both = np.sort(np.concatenate((one, other)), kind="stable")
    num_common = int(np.count_nonzero(both[1:] == both[:-1]))
    return num_common / (len(both) - num_common)


def _pairs(bands: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    pairs = np.zeros(len(first), dtype=PAIR)
    pairs["first"], pairs["second"] = bands["document"][first], bands["document"][second]
    keys = pairs["first"] * _MULTIPLIER + pairs["second"]
    keys ^= keys >> _HALF
    keys *= _FACTOR
    keys ^= keys >> _HALF
    pairs["key"] = keys
    return pairs
