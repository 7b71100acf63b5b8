"""Has the base read these problems before? It is shown the beginning of each as plain text and goes on by itself.

After Wu et al. 2025 (arXiv:2507.10532), who so found that Qwen2.5-Math-7B completes 54.6% of MATH-500 from the first
60% of a problem, and 0% of problems that were published later. Reported at each share of the text: how often the rest
comes out word for word (`exact`), ROUGE-L of what came out in its place, and how often the answer to the problem came
out too, although it was never asked in full (`answered`).

A rest can be guessed, so a set is compared with problems that nobody can have seen: its renumbered twins, or another
draw of the same generator (`verifiers/tasks/twins.py`). The flag is raised when the set's exact rate exceeds its
control's and the interval of the difference excludes 0. Of a renumbered pair only those count whose rests differ:
words that both share come out for both, whether from memory or not. A set without a control is flagged when the lower
bound of its rate exceeds `threshold`.

Our departures: greedy decoding alone, words instead of characters are cut, and the comparison with a control.

What this does not do: find a set that was read in other words or other order; tell a raised flag from one by chance
better than its interval says (one in forty at 95%); clear a set: no flag is no proof that it was not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs import stall
from configs.names import FIM, TWINNED, TWINS, is_generated
from configs.settings.common import Sampling, TaskSource
from configs.settings.probe import Probe
from configs.suites import PREFIX as SUITE
from configs.suites import members_of
from derivatives.evaluation.statistics import Interval, bootstrap_mean, wilson
from derivatives.rollout.engine import Completion, RolloutEngine
from derivatives.rollout.on_ranks import share_out
from derivatives.training.chat import encode_text
from derivatives.training.ranks import ALONE, Ranks
from verifiers.api import Outcome, Task
from verifiers.pool import VerifierPool
from verifiers.tasks import load_tasks

_TWINS = f"{TWINS}/"
_SHORTEST = 15
"""Rests of up to a token more are continued together; longer ones with those of up to twice as many."""


@dataclass(frozen=True)
class Cut:
    """A problem of which the first part is shown."""

    task: Task
    shown: str
    rest: str


@dataclass(frozen=True)
class Recalled:
    """What came out for a cut problem: the rest word for word, ROUGE-L of it, the answer (None where not asked for)."""

    exact: bool
    rouge_l: float
    answered: bool | None


def controls(tasks: Sequence[Task], sources: Sequence[TaskSource], settings: Probe) -> dict[str, list[Task]]:
    """Problems that no model can have read, by the name of the set that they are like; none for sets without any.

    Twins that are asked anyway are taken, others are made.

    Raises:
        UserError: A generated set has too few questions for two draws.
    """
    found: dict[str, list[Task]] = {}
    for task in tasks:
        if task.source.startswith(_TWINS):
            found.setdefault(task.source.removeprefix(_TWINS), []).append(task)
    single = [one for source in sources
              for one in (members_of(source) if source.name.startswith(SUITE) else [source])]  # fmt: skip
    for source in single:
        if source.name in found or not (source.name in TWINNED or is_generated(source.name)) or _skipped(source.name):
            continue
        count = source.count
        if is_generated(source.name) and count is not None:
            count = min(count, settings.num_problems)
        found[source.name] = load_tasks(source.model_copy(update={"name": _TWINS + source.name, "count": count}))
    return found


def probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task],
    unseen: Mapping[str, Sequence[Task]], settings: Probe, pool: VerifierPool, confidence: float,
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Each task set's flag; every rank must call it.

    Args:
        model: The base, as it is.
        tokenizer: Its tokenizer.
        tasks: Problems of all sets. Twins and fill-in-the-middle sets are passed over.
        unseen: What `controls` gives.
        settings: Shares and sizes.
        pool: Judges whether the answer came out.
        confidence: Level of all intervals.
        ranks: Who shares the work.

    Returns:
        By set: `flag`, `decided_at` (share), `n` (problems there), `shares` (share -> `n`, `exact`, `rouge_l`,
        `answered`, each an interval), `control` (`name`, `n`, `exact`, `set_exact`, `excess`) or None, `threshold`
        (where there is no control). The keys of `shares` are texts, as JSON has them.
    """
    sets: dict[str, list[Task]] = {}
    for task in tasks:
        if not _skipped(task.source):
            sets.setdefault(task.source, []).append(task)
    planned = {name: _plan(name, group, unseen.get(name, ()), settings) for name, group in sets.items()}
    asked = [one for plan in planned.values() for one in (*chain(*plan.by_share.values()), *plan.control)]
    engine = RolloutEngine(model, tokenizer)
    recalled = dict(zip(map(id, asked), _Asker(engine, settings, pool, ranks).ask(asked), strict=True))
    engine.release()
    return {name: _concluded(name, plan, recalled, settings, confidence) for name, plan in planned.items()}


@dataclass(frozen=True)
class _Plan:
    """What is asked of a set.

    Attributes:
        by_share: Its problems, cut at each share.
        compared: Those of them, at the share that decides, that are compared with the control.
        control: The control's problems; of a renumbered set the twins of the compared ones, in their order.
        has_control: Whether there is one, although none of its problems may be long enough.
    """

    by_share: Mapping[float, Sequence[Cut]]
    compared: Sequence[Cut]
    control: Sequence[Cut]
    has_control: bool


def _plan(name: str, tasks: Sequence[Task], unseen: Sequence[Task], settings: Probe) -> _Plan:
    by_share = {share: _long_enough(tasks, share, settings) for share in settings.shares}
    decisive = by_share[settings.decided_at]
    if name not in TWINNED:
        return _Plan(by_share, decisive, _long_enough(unseen, settings.decided_at, settings), bool(unseen))
    twins = {str(task.metadata.get("twin_of")): cut(task, settings.decided_at) for task in unseen}
    pairs = [(one, twins[one.task.id]) for one in decisive if one.task.id in twins]
    pairs = [(one, twin) for one, twin in pairs if one.rest != twin.rest]
    return _Plan(by_share, [one for one, _ in pairs], [twin for _, twin in pairs], bool(unseen))


def cut(task: Task, share: float) -> Cut:
    """The problem after this share of its words.

    >>> one = cut(Task("1", "Ann has 3 pens. How many are left?", "2"), 0.5)
    >>> one.shown, one.rest
    ('Ann has 3 pens.', 'How many are left?')
    """
    text = task.prompt.strip()
    words = list(re.finditer(r"\S+", text))
    num_shown = min(len(words) - 1, max(1, round(share * len(words)))) if len(words) > 1 else len(words)
    end = words[num_shown - 1].end() if num_shown else 0
    return Cut(task, text[:end], text[end:].strip())


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words (Lin 2004), from 0 to 1.

    >>> rouge_l("the pens are left".split(), "the red pens left".split())  # 3 of 4 words of each
    0.75
    """
    if not first or not second:
        return 0.0
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, 1):
            row[place], before = before + 1 if word == other else max(row[place], row[place - 1]), row[place]
    return 2 * row[-1] / (len(first) + len(second))


def excess(first: tuple[int, int], second: tuple[int, int], confidence: float) -> Interval:
    """First proportion less the second, as (count, total) each, by Newcombe's hybrid score interval.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10. For pairs it is
    wider than need be.

    >>> {name: round(value, 4) for name, value in excess((56, 70), (48, 80), 0.95).items()}  # his first example
    {'value': 0.2, 'low': 0.0524, 'high': 0.3339}
    """
    shares = [count / total if total else 0.0 for count, total in (first, second)]
    (low_1, high_1), (low_2, high_2) = wilson(*first, confidence), wilson(*second, confidence)
    value = shares[0] - shares[1]
    return {
        "value": value,
        "low": max(-1.0, value - math.hypot(shares[0] - low_1, high_2 - shares[1])),
        "high": min(1.0, value + math.hypot(high_1 - shares[0], shares[1] - low_2)),
    }


@dataclass(frozen=True)
class _Asker:
    engine: RolloutEngine
    settings: Probe
    pool: VerifierPool
    ranks: Ranks

    def ask(self, cuts: Sequence[Cut]) -> list[Recalled]:
        """What came out, in order, on every rank."""
        return share_out(self.ranks, len(cuts), lambda places: self._ask([cuts[place] for place in places]))

    def _ask(self, cuts: Sequence[Cut]) -> list[Recalled]:
        """Those whose rests are about as long together, so that a short one is not continued for as long as any."""
        sizes = [len(encode_text(self.engine.tokenizer, one.rest)) for one in cuts]
        found: dict[int, Recalled] = {}
        for size in sorted({max(_SHORTEST, size - 1).bit_length() for size in sizes}):
            places = [place for place, one in enumerate(sizes) if max(_SHORTEST, one - 1).bit_length() == size]
            got = self._ask_alike([cuts[place] for place in places], max(sizes[place] for place in places))
            found |= dict(zip(places, got, strict=True))
        return [found[place] for place in range(len(cuts))]

    def _ask_alike(self, cuts: Sequence[Cut], rest_tokens: int) -> list[Recalled]:
        prompts = [encode_text(self.engine.tokenizer, one.shown) for one in cuts]
        room = self.engine.model.config.max_position_embeddings - max(map(len, prompts))
        num_tokens = max(1, min(rest_tokens + self.settings.answer_tokens, room))
        sampling = Sampling(temperature=0.0, max_new_tokens=num_tokens)
        keys = [f"probe/{one.task.id}" for one in cuts]

        def alive(_place: int, _sample: int, _completion: Completion) -> None:
            stall.alive()

        groups = self.engine.generate(prompts, 1, sampling, keys=keys, on_completion=alive)
        texts = [completion.text for (completion,) in groups]
        answered: list[bool | None] = [None] * len(cuts)
        if self.settings.answer_tokens:
            verdicts = self.pool.judge([(one.task, text) for one, text in zip(cuts, texts, strict=True)])
            answered = [verdict.outcome is Outcome.CORRECT for verdict in verdicts]
        return [
            _recalled(one.rest.split(), text.split(), right)
            for one, text, right in zip(cuts, texts, answered, strict=True)
        ]


def _recalled(rest: Sequence[str], words: Sequence[str], answered: bool | None) -> Recalled:
    """Compares as many words as the rest has; white space does not count, nor what follows on the last word."""
    start = list(words[: len(rest)])
    exact = len(start) == len(rest) and start[:-1] == list(rest[:-1]) and start[-1].startswith(rest[-1])
    return Recalled(exact, 1.0 if exact else rouge_l(start, rest), answered)


def _concluded(name: str, plan: _Plan, recalled: Mapping[int, Recalled], settings: Probe, confidence: float) \
        -> dict[str, Any]:  # fmt: skip
    """A set's flag. `recalled` is by the identity of the cut: a problem is cut more than once."""

    def of(cuts: Sequence[Cut]) -> list[Recalled]:
        return [recalled[id(one)] for one in cuts]

    def exact(cuts: Sequence[Cut]) -> tuple[int, int]:
        return sum(one.exact for one in of(cuts)), len(cuts)

    shares = {str(share): _figures(of(cuts), confidence) for share, cuts in plan.by_share.items()}
    decisive = shares[str(settings.decided_at)]
    about = {"decided_at": settings.decided_at, "n": decisive["n"], "shares": shares}
    if not plan.has_control:
        flag = decisive["n"] > 0 and decisive["exact"]["low"] > settings.threshold
        return {"flag": flag, **about, "control": None, "threshold": settings.threshold}
    first, second = exact(plan.compared), exact(plan.control)
    more = excess(first, second, confidence)
    control = {
        "name": _TWINS + name, "n": len(plan.control), "exact": _proportion(*second, confidence),
        "set_exact": _proportion(*first, confidence), "excess": more,
    }  # fmt: skip
    flag = min(first[1], second[1]) > 0 and more["low"] > 0.0
    return {"flag": flag, **about, "control": control, "threshold": None}


def _long_enough(tasks: Sequence[Task], share: float, settings: Probe) -> list[Cut]:
    cuts = [cut(task, share) for task in tasks[: settings.num_problems]]
    return [one for one in cuts if len(one.rest.split()) >= settings.min_rest_words]


def _figures(got: Sequence[Recalled], confidence: float) -> dict[str, Any]:
    answers = [one.answered for one in got if one.answered is not None]
    return {
        "n": len(got),
        "exact": _proportion(sum(one.exact for one in got), len(got), confidence),
        "rouge_l": bootstrap_mean([one.rouge_l for one in got], confidence, 0) if got else None,
        "answered": _proportion(sum(answers), len(answers), confidence) if answers else None,
    }


def _proportion(count: int, total: int, confidence: float) -> Interval:
    low, high = wilson(count, total, confidence)
    return {"value": count / total if total else 0.0, "low": low, "high": high}


def _skipped(name: str) -> bool:
    """Twins are nobody's reading, and a text with a hole in it has no beginning to be shown."""
    return name.startswith((_TWINS, f"{FIM}/"))
