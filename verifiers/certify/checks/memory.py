"""Memory stays flat over ten thousand calls, half of them on completions that no call has seen before.

Resident memory of the process and all that it started is looked at a hundred times. The first half of the calls is a
warm-up: caches with a bound fill. Over the second half the slope is the median of the slopes between all pairs of
samples (Theil and Sen), which one large allocation does not move; a leak also has to have kept some megabytes, below
which an allocator's own habits could be mistaken for one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.children import ChildFault, ask

NAME = "memory"
MAX_KB_PER_CALL = 2.0
MIN_GROWN_MB = 4.0
HOW = "bound its caches, close what it opens, and keep no completion, task or exception after a call"


def check(bench: Bench) -> Finding:
    """In a process of its own, with a cap on its memory."""
    limits = bench.limits
    try:
        found = ask(
            bench, "memory", bench.cases, limits.memory_s + 2 * bench.deadline_s,
            calls=limits.memory_calls, limit_s=limits.memory_s,
        )  # fmt: skip
    except ChildFault as fault:
        return Finding(NAME, "failed", f"judged over and over it {fault}")
    samples = [(int(call), float(mb)) for call, mb in found["samples"]]
    calls = int(found["calls"])
    if found["out_of_memory"]:
        return Finding(
            NAME, "failed", f"it ran out of memory ({limits.memory_mb} MB) after {calls:,} calls: {HOW}",
            measured={"calls": calls, "megabytes": [mb for _, mb in samples[-5:]]},
        )  # fmt: skip
    later = samples[len(samples) // 2 :]
    slope_kb, grown_mb = 1024 * slope(later), later[-1][1] - later[0][1]
    counted = max(1, later[-1][0] - later[0][0])
    measured = {
        "calls": calls,
        "kb_per_call": round(slope_kb, 3),
        "grown_mb": round(grown_mb, 2),
        "resident_mb": round(later[-1][1], 1),
        "least_leak_seen_kb": round(max(MAX_KB_PER_CALL, 1024 * MIN_GROWN_MB / counted), 2),
    }
    if slope_kb > MAX_KB_PER_CALL and grown_mb > MIN_GROWN_MB:
        return Finding(
            NAME,
            "failed",
            f"memory grows by {slope_kb:.1f} KB a call, by {grown_mb:.0f} MB over the last {counted:,} calls: {HOW}",
            measured=measured,
        )
    return Finding(NAME, "passed", "memory stays flat from call to call", measured=measured)


def slope(samples: Sequence[tuple[int, float]]) -> float:
    """Median of the slopes between all pairs of samples; 0 where there are fewer than two.

    >>> slope([(0, 1.0), (1, 2.0), (2, 3.0), (3, 40.0)])
    1.0
    """
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(samples)
        for later in samples[number + 1 :]
        if later[0] > earlier[0]
    ]
    return statistics.median_low(slopes) if slopes else 0.0
