"""Seeded orders and stable splits: functions of the seed and of names, of nothing else.

The keys are splitmix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195) of a counter, sorted. numpy's own
permutations may change from one release to the next (NEP 19); these may not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from verifiers.tasks.library import HELD_OUT_ONE_IN, in_split

__all__ = ["HELD_OUT_ONE_IN", "in_split", "shuffled", "shuffled_groups"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def shuffled(num: int, seed: int, *what: str | int) -> np.ndarray:
    """A permutation of `range(num)` (int64), drawn from the seed and from the words that say what is drawn."""
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    start = np.uint64(int.from_bytes(digest, "little"))
    with np.errstate(over="ignore"):
        keys = start + np.arange(1, num + 1, dtype=np.uint64) * _GOLDEN
        keys = (keys ^ (keys >> np.uint64(30))) * _MIX_1
        keys = (keys ^ (keys >> np.uint64(27))) * _MIX_2
        keys ^= keys >> np.uint64(31)
    return np.argsort(keys, kind="stable").astype(np.int64)


def shuffled_groups(groups: Sequence[str], seed: int, *what: str | int) -> list[int]:
    """Places of the items in a drawn order of their groups, each group's items together and in the order given.

    >>> groups = ["a", "b", "a", "c"]
    >>> sorted(shuffled_groups(groups, 0)), [groups[i] for i in shuffled_groups(groups, 0)].count("a")
    ([0, 1, 2, 3], 2)
    """
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    names = list(members)
    return [i for k in shuffled(len(names), seed, *what) for i in members[names[k]]]
