"""What fewer bits cost: an export asked the release's own held-out problems and texts again, beside the release.

    asked = questions_of(release, 1000)
    found = quality(asked, release, path, Limits(...))

The problems are those of the evaluation that the release was judged by (`lineage.json` holds its settings), the first
of each set in turn, put in the same words, answered greedily and judged by the same verifier. The export's weights are
what its whole numbers stand for, rounded to bf16, in this project's own model, so that nothing but the weights differs.
Differences are paired over problems and over documents, with bootstrap intervals.

Not measured: an engine that rounds activations as well (llama.cpp beside quantised weights), and how it renders a chat.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.settings.common import Sampling, TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.evaluation import EvaluateStage
from configs.settings.machine import Machine
from configs.settings.tools import ToolUse
from derivatives.evaluation.answers import Answer, Asking, ask
from derivatives.evaluation.asked import problems_of
from derivatives.evaluation.formats import CHAT, Examples, gather_examples
from derivatives.evaluation.statistics import bootstrap_mean, relative_rise, wilson
from derivatives.evaluation.texts import Cost, bits_per_byte, document_costs, read_texts
from derivatives.formats.weights import Weights
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.tools import open_tools
from derivatives.training.model import load_model
from verifiers.api import Outcome, Task
from verifiers.breaker import Breaker
from verifiers.pool import VerifierPool

PLAIN_TEXT = CorpusSource(name="python_stdlib", split="heldout", count=20)
"""Read where the evaluation read no text: every machine has it."""
METRICS = ("pass@1", "bits_per_byte")


@dataclass(frozen=True)
class Limits:
    """What an export may lose: pass@1 as a share of the problems (the lower end of the interval of the difference must
    stay above its negative), bits per byte as a relative rise (the upper end, of each text)."""

    pass_at_1: float
    bits_per_byte: float


EIGHT_BITS, FOUR_BITS = Limits(0.02, 0.01), Limits(0.05, 0.03)
DEFAULT_LIMITS = {"f16": EIGHT_BITS, "q8_0": EIGHT_BITS, "int8": EIGHT_BITS, "q4_0": FOUR_BITS, "int4": FOUR_BITS}
"""Our choice: what 8 bits cost should not be found on problems, and 4 bits may cost a few points."""


@dataclass(frozen=True)
class Asked:
    """Problems and texts, and how they are put."""

    tasks: Sequence[Task]
    texts: Mapping[str, Sequence[str]]
    form: str = CHAT
    examples: Examples = field(default_factory=dict)
    num_examples: int = 0
    system: str | None = None
    judge: str | None = None
    max_new_tokens: int = 512
    seed: int = 0
    confidence: float = 0.95
    max_no_verdict: float = 0.1
    tools: ToolUse | None = None


@dataclass(frozen=True)
class Answered:
    """One model's answers to the problems, and what each document cost it."""

    answers: Sequence[Answer]
    costs: Mapping[str, Sequence[Cost]]


@dataclass(frozen=True)
class Quality:
    """Release and export on the same problems and texts; shares, bits and relative rises with intervals.

    Attributes:
        problems: How many.
        sets: Problems by task set.
        pass_at_1: `release`, `export` and the paired `difference`, whose lower end counts missing verdicts on the
            release as right, where the export wrote something else.
        same_answers: Share of the problems where both wrote the same text.
        texts: By text: bits per byte of `release` and `export`, and the relative `rise`.
        limits: What was allowed.
        loosened: Metrics whose limit was loosened by hand, with the default.
        exceeded: What is over its limit, in words.
        seconds: What measuring took.
    """

    problems: int
    sets: dict[str, int]
    pass_at_1: dict[str, Any]
    same_answers: float
    texts: dict[str, dict[str, Any]]
    limits: Limits
    loosened: dict[str, float]
    exceeded: list[str]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As `formats.json` holds it."""
        return {
            "problems": self.problems, "sets": self.sets, "pass@1": self.pass_at_1, "same_answers": self.same_answers,
            "bits_per_byte": self.texts, "limits": {"pass@1": self.limits.pass_at_1,
            "bits_per_byte": self.limits.bits_per_byte}, "default_limits_loosened": self.loosened,
            "exceeded": self.exceeded, "seconds": round(self.seconds, 1),
        }  # fmt: skip


def questions_of(
    release: Path, num_problems: int | None, tasks: Sequence[TaskSource] = (), with_texts: bool = True
) -> Asked:
    """The problems and texts of the evaluation that a release stands on.

    Args:
        release: Its folder, or an export's, which carries the same lineage.
        num_problems: The first of each set in turn; None takes all.
        tasks: Other sets than the evaluation's, each judged by its own verifier.
        with_texts: Whether texts are read as well.

    Raises:
        UserError: The folder does not say how it was evaluated and no tasks are given, or they give no problem.
    """
    stage, seed = evaluation_of(release)
    if tasks:
        stage = (stage or EvaluateStage(id="evaluate", models=("base",), tasks=tuple(tasks), few_shot=0)).model_copy(
            update={"tasks": tuple(tasks), "judge": None}
        )
    if stage is None:
        raise UserError(
            f"RELEASE: {release} does not say by which problems it was evaluated (no evaluation in lineage.json); name "
            "some with --tasks"
        )
    drawn = problems_of(stage.tasks)
    if not drawn:
        raise UserError("--tasks: they give no problem; name others")
    form = form_of(release)
    return Asked(
        [drawn[place] for place in in_turn(drawn, num_problems)],
        read_texts(stage.heldout_text or (PLAIN_TEXT,)) if with_texts else {},
        form,
        gather_examples(stage, drawn, seed) if form != CHAT else {},
        stage.few_shot if form != CHAT else 0,
        stage.system,
        stage.judge,
        stage.sampling.max_new_tokens,
        seed,
        stage.confidence,
        stage.max_no_verdict,
        stage.tools,
    )


def evaluation_of(release: Path) -> tuple[EvaluateStage | None, int]:
    """Settings of the evaluation that a release was judged by, and the recipe's seed; None where it does not say."""
    try:
        lineage = json.loads((release / "lineage.json").read_text(encoding="utf-8"))
        told = (lineage.get("released") or {}).get("evaluation")
        judged = [one for one in lineage["stages"] if one["kind"] == "evaluate"]
        found = next((one for one in judged if one.get("id") == told), judged[-1])["config"]
        return EvaluateStage.model_validate(found), int(lineage.get("seed") or 0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None, 0


def form_of(release: Path) -> str:
    """How the released model was asked: what the lineage names, in older ones the last of the evaluation's models; as
    a chat where neither says."""
    stage, _ = evaluation_of(release)
    try:
        models = json.loads((release / "evaluation.json").read_text(encoding="utf-8"))["models"]
        told = json.loads((release / "lineage.json").read_text(encoding="utf-8")).get("released") or {}
        return str(models[told.get("model") or stage.models[-1]]["format"]) if stage else CHAT
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return CHAT


def in_turn(tasks: Sequence[Task], count: int | None) -> list[int]:
    """Places of this many problems, the first of each set in turn."""
    places: dict[str, int] = {}
    order: list[tuple[int, int]] = []
    for index, task in enumerate(tasks):
        places[task.source] = places.get(task.source, -1) + 1
        order.append((places[task.source], index))
    return sorted(index for _, index in sorted(order)[:count])


def answer(asked: Asked, release: Path, machine: Machine, weights: Weights | None = None) -> Answered:
    """The release's model on the problems and texts, or, with `weights`, the same model with those in it.

    Raises:
        UserError: The weights are not of this model, or too many verdicts are missing.
    """
    model, tokenizer = load_model(release, "bf16", machine.device)
    if weights is not None:
        put(model, weights)
    with (
        open_tools(asked.tools, machine.num_verifier_workers) as tools,
        VerifierPool(machine.num_verifier_workers, verifier=asked.judge, max_no_verdict=asked.max_no_verdict) as pool,
    ):
        engine = RolloutEngine(model, tokenizer, tools=tools)
        faults = Breaker(asked.max_no_verdict)
        asking = Asking(pool, asked.examples, asked.num_examples, asked.system, asked.seed, faults)
        greedy = Sampling(temperature=0.0, max_new_tokens=asked.max_new_tokens)
        answers = [group[0] for group in ask(engine, asked.tasks, asked.form, asking, greedy, 1)]
        engine.release()
    costs = {name: document_costs(model, tokenizer, documents) for name, documents in asked.texts.items()}
    del model, engine
    gc.collect()
    if machine.device == "cuda":
        torch.cuda.empty_cache()
    return Answered(answers, costs)


@torch.no_grad()
def put(model: Any, weights: Weights) -> None:
    """Copy weights into a model of the same shape. Raises UserError."""
    wanted = dict(model.named_parameters())  # a head that is the embedding is not among them
    for name, weight in weights:
        place = wanted.pop(name, None)
        if place is None or place.shape != weight.shape:
            raise UserError(f"export: {name} is no weight of the release in this shape; give an export of this release")
        place.copy_(weight)
    if wanted:
        raise UserError(f"export: {', '.join(sorted(wanted)[:3])} is missing in it; export the release again")


def quality(asked: Asked, before: Answered, after: Answered, kind: str, limits: Limits, seconds: float) -> Quality:
    """The release's answers and the export's as figures, held against the limits."""
    problems = list(zip(before.answers, after.answers, strict=True))
    changes = [float(b.correct) - float(a.correct) for a, b in problems]
    difference = bootstrap_mean(changes, asked.confidence, asked.seed)
    # As a release's gates have it: a verdict that is missing on the release may have been right.
    missing = sum(a.outcome == Outcome.NO_VERDICT.value and a.completion != b.completion for a, b in problems)
    difference["low"] -= missing / len(problems)
    shares = [sum(one.correct for one in side) / len(problems) for side in (before.answers, after.answers)]
    exceeded = []
    # Resampling problems of which none changed gives an interval of no width, however few they are.
    unseen = wilson(0, len(problems), asked.confidence)[1]
    if not unseen <= limits.pass_at_1:
        exceeded.append(
            f"{len(problems)} problems are too few to show it: if none of them changed, as many as {unseen:.1%} of all "
            f"still might, and {limits.pass_at_1:.1%} are allowed"
        )
    if not difference["low"] > -limits.pass_at_1:
        exceeded.append(
            f"pass@1 on {len(problems)} problems changed by {100 * difference['value']:+.1f} points "
            f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]; the lower end must exceed "
            f"{0 - 100 * limits.pass_at_1:g}"
            + (f" ({missing} missing verdicts on the release count as right)" if missing else "")
        )
    texts: dict[str, dict[str, Any]] = {}
    for name, costs in before.costs.items():
        bits = ([bits for _, bits in costs], [bits for _, bits in after.costs[name]])
        rise = relative_rise(*bits, asked.confidence, asked.seed)
        texts[name] = {"release": bits_per_byte(costs), "export": bits_per_byte(after.costs[name]), "rise": rise}
        highest = rise["value"] if rise["high"] is None else rise["high"]
        if not highest <= limits.bits_per_byte:
            exceeded.append(f"bits per byte of {name} rose by {rise['value']:.2%} (at most {highest:.2%}); allowed: "
                            f"{limits.bits_per_byte:.2%}")  # fmt: skip
    sets: dict[str, int] = {}
    for task in asked.tasks:
        sets[task.source] = sets.get(task.source, 0) + 1
    usual = DEFAULT_LIMITS[kind]
    loosened = {
        name: default
        for name, own, default in zip(METRICS, (limits.pass_at_1, limits.bits_per_byte),
                                      (usual.pass_at_1, usual.bits_per_byte), strict=True)
        if own > default
    }  # fmt: skip
    return Quality(
        len(problems), sets, {"release": shares[0], "export": shares[1], "difference": difference},
        sum(a.completion == b.completion for a, b in problems) / len(problems), texts, limits, loosened, exceeded,
        seconds,
    )  # fmt: skip


class LossCheck:
    """Asks an export the release's questions, and lets it through or refuses it; the release itself is asked once."""

    def __init__(self, release: Path, asked: Asked, kind: str, machine: Machine, allowed: Mapping[str, float]) -> None:
        self.release, self.asked, self.kind, self.machine = release, asked, kind, machine
        self.limits = replace(
            DEFAULT_LIMITS[kind], **{name.replace("@", "_at_"): value for name, value in allowed.items()}
        )
        self.found: Quality | None = None

    def __call__(self, export: Path) -> None:
        """Raises UserError where it lost more than is allowed."""
        from derivatives.formats.weights import exported

        started = time.monotonic()
        before = answer(self.asked, self.release, self.machine)
        after = answer(self.asked, self.release, self.machine, exported(self.release, export))
        self.found = quality(self.asked, before, after, self.kind, self.limits, time.monotonic() - started)
        if self.found.exceeded:
            raise UserError(
                f"--to: {self.kind} lost more than is allowed, so nothing was kept: {'; '.join(self.found.exceeded)}. "
                "Take more bits, ask more problems (--problems) for a narrower interval, or allow the loss "
                "(--allow-loss METRIC=SHARE), which is then written down"
            )
