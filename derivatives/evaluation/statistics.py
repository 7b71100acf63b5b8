"""Figures with intervals: Wilson's for a proportion, the bootstrap for everything else.

Sources: Wilson (1927), "Probable inference, the law of succession, and statistical inference"; pass@k is the unbiased
estimator of Chen et al. 2021 (arXiv:2107.03374), section 2.1; the bootstrap is Efron's with percentile intervals, and
resamples problems, so that the samples of one problem stay together. Two models are compared on the same problems
(paired), with the same resamples. Bits per byte are compared on the same documents: the ratio of the two sums, with
whole documents drawn anew, since what stands in one document is no independent sample. Not done: corrections for many
comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any

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
    return bootstrap_means([values], confidence, seed)[0]


def bootstrap_means(columns: Sequence[Sequence[float]], confidence: float, seed: int) -> list[Interval]:
    """`bootstrap_mean` of several rows of values, one for each problem in every one, with the same resamples."""
    array = np.asarray(columns, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values to take a mean of; give at least one")
    size = array.shape[1]
    resampled = np.concatenate([_counts(drawn, size) @ array.T for drawn in _resamples(size, seed)]) / size
    means = array.mean(axis=1)
    return [{"value": float(mean), **_ends(own, confidence)} for mean, own in zip(means, resampled.T, strict=True)]


def relative_rise(before: Sequence[float], after: Sequence[float], confidence: float, seed: int) -> dict[str, Any]:
    """By which share the sum of `after` exceeds that of `before`, with an interval over documents drawn in pairs.

    Args:
        before: A positive number for each document, such as the bits that a model needs for it.
        after: The same of another model.
        confidence: Level of the interval.
        seed: As of `bootstrap_mean`.

    Returns:
        `value`, `low`, `high` and `documents`; no ends (None) where there is one document alone, which says nothing
        of others.

    >>> relative_rise([100.0, 300.0], [110.0, 330.0], 0.95, 0)["high"]  # both rise by a tenth, so every resample does
    0.1
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    value = {"value": float(_rise(first.sum(), second.sum())), "documents": first.size}
    if first.size < 2:
        return {**value, "low": None, "high": None}
    parts = [_rise(first[drawn].sum(axis=1), second[drawn].sum(axis=1)) for drawn in _resamples(first.size, seed)]
    return {**value, **_ends(np.concatenate(parts), confidence)}


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """`count`, `mean`, `low_quartile`, `median` and `high_quartile`; None of nothing.

    >>> spread([1, 2, 3, 4, 10])
    {'count': 5, 'mean': 4.0, 'low_quartile': 2.0, 'median': 3.0, 'high_quartile': 4.0}
    """
    if not values:
        return None
    low, middle, high = (float(one) for one in np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75]))
    return {
        "count": len(values), "mean": math.fsum(values) / len(values), "low_quartile": low, "median": middle,
        "high_quartile": high,
    }  # fmt: skip


def _rise(before: Any, after: Any) -> Any:
    return (after - before) / before


def _resamples(size: int, seed: int) -> Iterator[np.ndarray]:
    """Places drawn with replacement, [resamples, size], a chunk at a time; the same ones for equal arguments."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // size)
    for start in range(0, NUM_RESAMPLES, chunk):
        yield rng.integers(0, size, (min(chunk, NUM_RESAMPLES - start), size))


def _counts(drawn: np.ndarray, size: int) -> np.ndarray:
    """How often each place is drawn in each resample, [resamples, size]."""
    offsets = np.arange(len(drawn))[:, None] * size
    return np.bincount((drawn + offsets).ravel(), minlength=len(drawn) * size).reshape(len(drawn), size).astype(float)


def _ends(resampled: np.ndarray, confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return {"low": float(low), "high": float(high)}
