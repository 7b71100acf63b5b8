"""Figures with intervals: Wilson's for a proportion, the bootstrap for everything else.

Sources: Wilson (1927), "Probable inference, the law of succession, and statistical inference"; pass@k is the unbiased
estimator of Chen et al. 2021 (arXiv:2107.03374), section 2.1; the bootstrap is Efron's with percentile intervals, and
resamples problems, so that the samples of one problem stay together. Two models are compared on the same problems
(paired), with the same resamples. Not done: corrections for many comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

NUM_RESAMPLES = 10_000
_CHUNK_CELLS = 2_000_000
"""Drawn indices that are held at once."""

Interval = dict[str, float]
"""`value`, `low` and `high`."""


def wilson(num_correct: int, total: int, confidence: float) -> tuple[float, float]:
    """Interval of a proportion; (0, 1) where nothing was counted.

    >>> [round(end, 4) for end in wilson(5, 10, 0.95)]
    [0.2366, 0.7634]
    """
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = num_correct / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # The ends are exactly 0 and 1 at the extremes; arithmetic leaves a trace there.
    return (
        0.0 if num_correct == 0 else max(0.0, middle - half),
        1.0 if num_correct == total else min(1.0, middle + half),
    )


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that one of k samples is correct, estimated from `num_samples` of which `num_correct` are.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k: {k} of {num_samples} samples; allowed: 1 to the number of samples")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def bootstrap_mean(values: Sequence[float], confidence: float, seed: int) -> Interval:
    """Mean of per-problem values with its percentile interval. Give differences for a paired comparison.

    Equal numbers of values and equal seeds are resampled alike.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values to take a mean of; give at least one")
    rng = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    chunk = max(1, _CHUNK_CELLS // array.size)
    for start in range(0, NUM_RESAMPLES, chunk):
        num = min(chunk, NUM_RESAMPLES - start)
        means.append(array[rng.integers(0, array.size, (num, array.size))].mean(axis=1))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return {"value": float(array.mean()), "low": float(low), "high": float(high)}
