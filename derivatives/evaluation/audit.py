"""A second opinion in evaluation: another verifier judges a share of every model's greedy answers.

All models are audited on the same problems, drawn evenly at random, so that gaps compare. The gap of a model is the
share that the judge calls correct less the share that the auditor does. A released model whose gap is wider than the
base's has learnt what pleases the judge; the gains under both say how much of the gain is confirmed.

Problems that the auditor judges already are left out, and so are answers that no verifier was asked about. A second
verdict that is missing is counted and stops nothing. No figure of the evaluation, and no gate, depends on the audit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.errors import UserError
from derivatives.evaluation.agreement import Agreement
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.report import ModelAnswers
from derivatives.evaluation.statistics import Interval, bootstrap_mean
from derivatives.rollout.judged import TOOL_FAULT, UNFINISHED
from derivatives.rollout.tools import FORGED
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool

STREAM = 0x41554445
"""Keeps the choice of problems apart from other draws of the same seed."""
_OWN_REASONS = (UNFINISHED[FORGED], f"{TOOL_FAULT}:")


@dataclass(frozen=True)
class Audited:
    """What an audit found.

    Attributes:
        verdicts: Second verdicts of each model, by place of the problem.
        figures: For `results.json`: `verifier`, `problems`, `models` (`Agreement.as_dict` of each) and `gains`.
    """

    verdicts: Mapping[str, Mapping[int, Verdict]]
    figures: Mapping[str, Any]


def was_asked(reason: str) -> bool:
    """Whether a verifier gave the verdict with this reason: an answer may end in one of its own."""
    return not reason.startswith(_OWN_REASONS)


def chosen(tasks: Sequence[Task], judge: str | None, verifier: str, share: float, seed: int) -> list[int]:
    """Places of the problems that are audited, in order.

    Raises:
        UserError: The auditor judges all of them already.
    """
    fit = [place for place, task in enumerate(tasks) if (judge or task.verifier) != verifier]
    if not fit:
        raise UserError(f"audit: {verifier!r} judges every problem of the evaluation already; name another verifier")
    order = np.random.default_rng((seed, STREAM)).permutation(len(fit))
    return sorted(fit[place] for place in order[: max(1, round(share * len(fit)))].tolist())


def audit(
    tasks: Sequence[Task], answers: Mapping[str, ModelAnswers], places: Sequence[int], verifier: str,
    confidence: float, seed: int, num_workers: int,
) -> Audited:  # fmt: skip
    """Judge the greedy answers at these places a second time, in a pool of their own."""
    verdicts: dict[str, dict[int, Verdict]] = {}
    with VerifierPool(num_workers, verifier=verifier) as pool:
        for name, model in answers.items():
            asked = [place for place in places if was_asked(model.greedy[place].reason)]
            judged = pool.judge([(tasks[place], model.greedy[place].completion) for place in asked])
            verdicts[name] = dict(zip(asked, judged, strict=True))
    models: dict[str, Any] = {}
    for name, found in verdicts.items():
        labels = Agreement()
        for place, verdict in found.items():
            labels.note(_verdict(answers[name].greedy[place]), verdict)
        models[name] = labels.as_dict(confidence)
    first, *others = answers
    gains = {name: _gain(answers, verdicts, first, name, confidence, seed) for name in others}
    return Audited(verdicts, {"verifier": verifier, "problems": len(places), "models": models, "gains": gains})


def _gain(
    answers: Mapping[str, ModelAnswers], verdicts: Mapping[str, Mapping[int, Verdict]], first: str, name: str,
    confidence: float, seed: int,
) -> dict[str, Interval | int | None]:  # fmt: skip
    """The gain over the first model by the judge and by the auditor, on the problems where all four verdicts are."""
    missing = Outcome.NO_VERDICT
    both = [
        place
        for place, verdict in verdicts[name].items()
        if place in verdicts[first] and missing not in (verdict.outcome, verdicts[first][place].outcome)
        and missing.value not in (answers[name].greedy[place].outcome, answers[first].greedy[place].outcome)
    ]  # fmt: skip
    if not both:
        return {"judge": None, "audit": None, "problems": 0}
    by_judge = [
        float(answers[name].greedy[place].correct) - float(answers[first].greedy[place].correct) for place in both
    ]
    by_audit = [
        float(verdicts[name][place].outcome is Outcome.CORRECT)
        - float(verdicts[first][place].outcome is Outcome.CORRECT)
        for place in both
    ]
    return {
        "judge": bootstrap_mean(by_judge, confidence, seed), "audit": bootstrap_mean(by_audit, confidence, seed),
        "problems": len(both),
    }  # fmt: skip


def _verdict(answer: Answer) -> Verdict:
    return Verdict(Outcome(answer.outcome), float(answer.correct), answer.extracted, answer.reason)
