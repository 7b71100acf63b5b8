"""The pool's asynchronous stream, as rollouts use it, gives the same verdicts."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from verifiers.api import Verdict
from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.repeated import baseline, first_difference, said, told_of

NAME = "async"


def check(bench: Bench) -> Finding:
    """In an event loop of a thread of its own: whoever certifies may have a loop running."""
    places = bench.sample(2)
    cases = [bench.cases[place] for place in places]

    async def collect() -> list[Verdict | None]:
        found: list[Verdict | None] = [None] * len(cases)
        with bench.new_pool() as pool:
            async for index, verdict in pool.stream_async((case.task, case.completion) for case in cases):
                found[index] = verdict
        return found

    with ThreadPoolExecutor(1) as executor:
        verdicts = executor.submit(lambda: asyncio.run(collect())).result()
    told = [None if verdict is None else told_of(verdict) for verdict in verdicts]
    found = first_difference(cases, baseline(bench, places), told)
    if found is not None:
        sentence = f"through the pool's asynchronous stream verdicts differ: {said(found)}; keep no state"
        return Finding(NAME, "failed", sentence, found)
    return Finding(NAME, "passed", "the asynchronous stream gives the same verdicts", measured={"cases": len(cases)})
