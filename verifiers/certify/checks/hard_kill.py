"""A worker that is killed while it judges is replaced, and every verdict stands."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from verifiers.certify.bench import WORKERS, Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.repeated import allowed_s, baseline, first_difference, said, told_of

NAME = "hard_kill"
AT_LEAST = 64
"""Judgements of which some are under way when a worker is killed."""


def check(bench: Bench) -> Finding:
    """Both workers are killed, one after the other, while all cases are judged several times."""
    chosen = bench.sample(4)
    places = (chosen * (AT_LEAST // len(chosen) + 1))[: max(AT_LEAST, len(chosen))]
    cases = [bench.cases[place] for place in places]
    limit = time.monotonic() + 60.0 + allowed_s(bench, len(cases))
    with bench.new_pool() as pool:
        first = pool.submit(cases[0].task, cases[0].completion)
        first.result()  # a worker is up
        futures = [pool.submit(case.task, case.completion) for case in cases]
        for pid in pool.worker_pids()[:WORKERS]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(min(0.2, 4 * bench.mean_s))
        told = [told_of(future.result(max(1.0, limit - time.monotonic()))) for future in futures]
    found = first_difference(cases, baseline(bench, places), told)
    if found is not None:
        return Finding(
            NAME,
            "failed",
            f"after a worker was killed in the middle of its work, verdicts differ: {said(found)}; leave no lock, "
            "no half-written file and no server of its own behind",
            found,
        )
    return Finding(NAME, "passed", "workers killed in the middle of their work are replaced, and all verdicts stand")
