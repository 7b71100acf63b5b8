"""The mixture: how much of each source is taken, and in which order the records are written.

The token budget is parted among the sources by weight (integers, largest remainder, summing exactly to the
budget). Each source gives whole records, in a seeded order, until the next one would exceed its part. A source that
runs out is repeated in a new order, up to its `max_epochs` in all: Muennighoff et al. 2023 (arXiv 2305.16264) find up
to four passes, which is the default, nearly as good as new data. What is still missing then is a shortfall, reported by
name; no other source fills it, so the other parts stay as asked. Without a budget everything is taken once and weights
do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from corpora.order import shuffled

MAX_PASSES = 4
"""That of a source which sets no `max_epochs`."""


@dataclass(frozen=True)
class Selection:
    """What one source gives: its records in order (int64 numbers, repeats included).

    Attributes:
        num_tokens: Tokens in these records.
        num_passes: Passes begun over the source.
        shortfall: Tokens asked for that all passes could not give; 0 where only the rest of less than one
            record is missing.
    """

    records: np.ndarray
    num_tokens: int
    num_passes: int
    shortfall: int


def parts_of_budget(num_tokens: int, weights: Sequence[float]) -> list[int]:
    """`num_tokens` parted by weight into integers that sum to it exactly (largest remainder, earlier source first).

    >>> parts_of_budget(100, [1.0, 1.0, 1.0])
    [34, 33, 33]
    """
    exact = [Fraction(weight) for weight in weights]
    shares = [num_tokens * weight / sum(exact) for weight in exact]
    parts = [int(share) for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - shares[i], i))
    for i in by_remainder[:num_tokens - sum(parts)]:
        parts[i] += 1
    return parts


def select(lengths: np.ndarray, budget: int | None, seed: int, name: str, max_passes: int = MAX_PASSES) -> Selection:
    """Records of one source within its token budget; all of them once when there is no budget.

    Args:
        lengths: Tokens in each record.
        budget: Most tokens to take, or None.
        seed: Seed of the run.
        name: What the order is drawn for; two sources with one name would get one order.
        max_passes: Times at most that a record is taken.
    """
    if budget is None:
        return Selection(shuffled(len(lengths), seed, name, 0), int(lengths.sum()), 1 if len(lengths) else 0, 0)
    taken: list[np.ndarray] = []
    missing = budget
    num_passes = 0
    while num_passes < max_passes and len(lengths) and missing:
        order = shuffled(len(lengths), seed, name, num_passes)
        ends = np.cumsum(lengths[order])
        num_fitting = int(np.searchsorted(ends, missing, side="right"))
        if num_fitting == 0:
            break
        taken.append(order[:num_fitting])
        missing -= int(ends[num_fitting - 1])
        num_passes += 1
        if num_fitting < len(lengths):
            break
    records = np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)
    ran_out = len(records) >= max_passes * len(lengths) or not taken
    return Selection(records, budget - missing, num_passes, missing if ran_out else 0)


def interleave(selected_lengths: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One order over all sources in which each is spread evenly from beginning to end.

    Args:
        selected_lengths: Per source, the tokens of its selected records in their order; 0 (not tokenised) is as 1.

    Returns:
        Source of every record written, and its position within that source's selection (both int64).
    """
    middles, sources, positions = [], [], []
    for i, given in enumerate(selected_lengths):
        lengths = np.maximum(given, 1)
        ends = np.cumsum(lengths)
        middles.append((ends - lengths / 2) / max(int(ends[-1]) if len(ends) else 1, 1))
        sources.append(np.full(len(lengths), i, dtype=np.int64))
        positions.append(np.arange(len(lengths), dtype=np.int64))
    order = np.argsort(np.concatenate(middles), kind="stable")
    return np.concatenate(sources)[order], np.concatenate(positions)[order]
