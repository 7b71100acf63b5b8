"""The checks of the certificate, one file each: a function from a `Bench` to a `Finding`.

They run in this order. What `STOPS` names must hold before anything else is worth running.
"""

from __future__ import annotations

from collections.abc import Callable

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks import (
    adversarial,
    asynchronous,
    cases,
    determinism,
    fork,
    gold,
    hard_kill,
    huge,
    latency,
    loading,
    malformed,
    memory,
    mutations,
    near_misses,
    order,
    rewrites,
    threads,
)

Check = Callable[[Bench], Finding]
_MODULES = (
    loading, cases, gold, near_misses, rewrites, mutations, adversarial, malformed, huge, determinism, order, threads,
    asynchronous, fork, hard_kill, memory, latency,
)  # fmt: skip
CHECKS: dict[str, Check] = {module.NAME: module.check for module in _MODULES}
"""Name -> check, in the order in which they run."""
CHECK_NAMES = tuple(CHECKS)
STOPS = frozenset((loading.NAME, cases.NAME, gold.NAME))
"""Where one of these ends with nothing to go on with, the others are not run."""
ALWAYS = (loading.NAME, cases.NAME, gold.NAME, near_misses.NAME)
"""Run with `--only`, too: the others need what they find."""
