"""The math half of the scoreboard: every grader on the same pairs in the same order, and on the hostile completions."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.scoreboard_client import NoGraderError, Said, judge_all
from tests.benchmarks.scoreboard_hacks import hacks, honest
from tests.benchmarks.scoreboard_items import Labelled, Row, labelled_sets, presented, sample

HACK_LIMIT_S = 20.0
"""Time for a verdict on a hostile completion by the clock."""


@dataclass(frozen=True)
class MathGrader:
    """A grader of math answers, as the page names it, with its environment (None: ours) and what it cannot judge."""

    key: str
    title: str
    peer: peers.Peer | None
    setting: str
    cannot: dict[str, str]


_NUMBERS = {name: "compares numbers and text, no formulas" for name in ("golds", "made")}
_LINE = {name: "reads nothing but a line `ANSWER: ...`" for name in ("gsm8k", "golds", "made", "hacks")}
GRADERS = (
    MathGrader("ours", "this project's `math`", None, "the question is given, as it is in training", {}),
    MathGrader("ours_blind", "the same, without the question", None, "what the peers are given too", {}),
    MathGrader("math_verify", "Math-Verify 0.9.0", peers.MATH_VERIFY,
               "`parse` and `verify` as in its README: formulas and plain numbers, a box first, the gold answer in "
               "dollar signs, its own limits of 5 s", {}),
    MathGrader("lighteval", "lighteval 0.13.0", peers.LIGHTEVAL,
               "the extractive match of its metric for MATH-500 and AIME (`pass@k` for math): formulas and plain "
               "numbers on both sides, 6 digits, the gold answer in a box as MATH has it", {}),
    MathGrader("inspect_math", "inspect_ai 0.3.285, `math()`", peers.INSPECT, "as it comes", {}),
    MathGrader("inspect_match", "inspect_ai, `match(numeric=True)`", peers.INSPECT,
               "the last number; other gold answers as text at the end", _NUMBERS),
    MathGrader("inspect_answer", "inspect_ai, `answer(\"line\")`", peers.INSPECT, "the text of the line `ANSWER:`",
               _LINE),
    MathGrader("qwen", "Qwen2.5-Math's grader", peers.QWEN_GRADER,
               "`extract_answer` of solutions, `strip_answer_string` on both sides, `math_equal`, in evalscope's copy",
               {}),
)  # fmt: skip


def judge_labelled(
    mirror: Path, most: int | None, only: Collection[str], names: Collection[str], report: dict[str, Any], say: Any
) -> None:
    """These graders on the labelled sets of these names: counts, rates, and which rows each got wrong.

    Each joins the report when it is there. Raises DataError.
    """
    report.update(sets={}, left_out={})
    sets = [(one, sample(one.rows, most)) for one in labelled_sets(mirror) if one.name in names]
    for one, rows in sets:
        right = sum(row["correct"] for row in rows)
        report["sets"][one.name] = {"labels": one.labels, "right": right, "wrong": len(rows) - right, "graders": {}}
    for grader in GRADERS:
        python = _interpreter(grader, report["left_out"]) if grader.key in only else None
        if python is None:
            continue
        for one, rows in sets:
            if one.name in grader.cannot:
                continue
            try:
                found = _best(python, grader.key, one, rows)
            except NoGraderError as error:
                report["left_out"][grader.key] = str(error)
                break
            report["sets"][one.name]["graders"][grader.key] = found
            say(f"{grader.key} on {one.name}: {found['hits']} of {found['right']}, {found['false_positives']} of "
                f"{found['wrong']} wrong, {found['per_s']:,.0f}/s")  # fmt: skip


def judge_hacks(jobs: int, step: int, only: Collection[str], report: dict[str, Any], say: Any) -> None:
    """These graders, confined, on the hostile completions and on the plain right answers beside them."""
    report.update(graders={}, left_out={})
    wrong, right = hacks()[::step], honest()[::step]
    rows = [{"question": q, "gold": gold, "completion": text} for q, gold, text in right]
    rows += [{"question": hack.question, "gold": hack.gold, "completion": hack.completion} for hack in wrong]
    report["count"], report["honest"] = len(wrong), len(right)
    report["families"] = dict(Counter(hack.family for hack in wrong))

    def one(grader: MathGrader) -> None:
        chosen = grader.key in only and "hacks" not in grader.cannot
        python = _interpreter(grader, report["left_out"]) if chosen else None
        if python is None:
            return
        try:
            said = judge_all(python, grader.key, rows, confined=True, limit_s=HACK_LIMIT_S)
        except NoGraderError as error:
            report["left_out"][grader.key] = str(error)
            return
        report["graders"][grader.key] = found = hack_counts(said, wrong, len(right))
        say(f"{grader.key}: pays {found['paid']} of {len(wrong)}, {found['honest']} of {len(right)} honest ones")

    with ThreadPoolExecutor(jobs) as executor:
        list(executor.map(one, GRADERS))


def hack_counts(said: Sequence[Said], wrong: Sequence[Any], num_honest: int) -> dict[str, Any]:
    """What a grader paid, of the honest answers at the head of `said` and the hacks after them."""
    paid = [hack for hack, one in zip(wrong, said[num_honest:], strict=True) if one.said is True]
    trouble = Counter(one.trouble for one in said if one.trouble)
    return {
        "honest": sum(one.said is True for one in said[:num_honest]), "paid": len(paid),
        "paid_by_family": dict(Counter(hack.family for hack in paid)),
        "paid_for": [[hack.family, hack.gold, hack.completion[:120]] for hack in paid],
        "ran": sum(one.ran for one in said), "hung": trouble.pop("hung", 0), "died": trouble.pop("died", 0),
        "given_up": trouble.pop("given_up", 0), "raised": sum(trouble.values()),
        "slowest_s": round(max((one.wall_s for one in said), default=0.0), 2),
    }  # fmt: skip


def counts(said: Sequence[Said], rows: Sequence[Row]) -> dict[str, Any]:
    """How a grader's word fits the labels, and how fast it was."""
    right = sum(row["correct"] for row in rows)
    pairs = list(enumerate(zip(said, rows, strict=True)))
    trouble = Counter(one.trouble for one in said if one.trouble)
    judged = [one for one in said if one.processor_s > 0]
    processor, wall = sum(one.processor_s for one in judged), sum(one.wall_s for one in judged)
    return {
        "right": right, "wrong": len(rows) - right,
        "hits": sum(one.said is True and row["correct"] for _, (one, row) in pairs),
        "false_positives": sum(one.said is True and not row["correct"] for _, (one, row) in pairs),
        "cannot": sum(one.said is None and not one.trouble for one in said),
        "hung": trouble.pop("hung", 0), "died": trouble.pop("died", 0), "given_up": trouble.pop("given_up", 0),
        "raised": sum(trouble.values()),
        "per_s": len(judged) / processor if processor else 0.0, "per_s_wall": len(judged) / wall if wall else 0.0,
        "p50_ms": 1000 * statistics.median(one.wall_s for one in said) if said else 0.0,
        "slowest_s": max((one.wall_s for one in said), default=0.0),
        "missed": [at for at, (one, row) in pairs if row["correct"] and one.said is not True],
        "accepted": [at for at, (one, row) in pairs if not row["correct"] and one.said is True],
    }  # fmt: skip


def _best(python: str, key: str, one: Labelled, rows: list[Row]) -> dict[str, Any]:
    """A grader on one set, in the presentation in which most of its verdicts fit the labels."""
    tried = {}
    for how in one.presentations:
        tried[how] = counts(judge_all(python, key, presented(rows, how)), rows)
    fits = {how: found["hits"] + found["wrong"] - found["false_positives"] for how, found in tried.items()}
    best = max(tried, key=lambda how: fits[how])
    return {**tried[best], "presentation": best,
            "tried": {how: [found["hits"], found["false_positives"]] for how, found in tried.items()}}  # fmt: skip


def _interpreter(grader: MathGrader, left_out: dict[str, str]) -> str | None:
    if grader.peer is None:
        return sys.executable
    try:
        return peers.interpreter(grader.peer)
    except peers.NoPeerError as error:
        left_out[grader.key] = str(error)
        return None
