"""A verdict does not depend on what was judged before it: forwards, backwards, and shuffled."""

from __future__ import annotations

import random

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.checks.repeated import Told, allowed_s, baseline, first_difference, said
from verifiers.certify.children import ChildFault, ask_all

NAME = "order"


def check(bench: Bench) -> Finding:
    """Each order has a fresh process, so that a first call is another case each time; the pool went forwards."""
    places = bench.sample(2)
    cases = [bench.cases[place] for place in places]
    backwards = list(range(len(cases)))[::-1]
    shuffled = random.Random(0).sample(backwards, len(backwards))
    orders = (backwards, shuffled)
    try:
        told = ask_all(bench, "verdicts", cases, allowed_s(bench, len(cases)), *({"order": order} for order in orders))
    except ChildFault as fault:
        return Finding(NAME, "failed", f"judging its cases in another order: it {fault}")
    accounts: list[list[Told | None]] = [baseline(bench, places)]
    for order, answers in zip(orders, told, strict=True):
        by_place: list[Told | None] = [None] * len(cases)
        for place, one in zip(order, answers, strict=True):
            by_place[place] = one
        accounts.append(by_place)
    forwards, from_the_end, mixed = accounts
    for one, other in ((from_the_end, mixed), (forwards, from_the_end), (forwards, mixed)):
        found = first_difference(cases, one, other)
        if found is not None:
            return Finding(
                NAME,
                "failed",
                f"the verdict depends on what was judged before: {said(found)}, in two orders; keep nothing from one "
                "call to the next in the instance, the module or a default argument",
                found,
            )
    return Finding(
        NAME, "passed", "verdicts are the same forwards, backwards and shuffled", measured={"cases": len(cases)}
    )
