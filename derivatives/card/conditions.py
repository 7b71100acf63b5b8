"""What was required of the release and what was measured, and what it gains over the control arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.settings.evaluation import NO_SIDE, Keep
from derivatives.card.facts import Facts, named_metrics
from derivatives.card.markdown import interval, number, table
from derivatives.gates import gain_between

ARMS = {
    "random": "{of} paid by a coin",
    "format": "{of} paid for the form of an answer alone",
    "sft": "more supervised fine-tuning in place of {of}",
}
METRICS = ("pass@1", "pass@k", "maj@k")


def gates(facts: Facts) -> str:
    """The gates, with what the recipe loosened."""
    if not facts.gates:
        text = "## Gates\n\nThe recipe sets no gate: nothing was required of this model.\n"
        return "\n".join([text, *_dropped(facts.keep)])
    rows = [
        [
            gate.name(),
            gate.against,
            gate.measured() + (f" ({gate.detail})" if gate.detail else ""),
            f"more than {gate.required:+.3f}" if gate.default is None else gate.requirement(),
        ]
        for gate in facts.gates
    ]
    parts = [
        "## Gates\n\nAll held; otherwise nothing would have been released. "
        "For accuracies the lower end of the interval counts, for a rise the upper one.\n",
        table(["metric", "against", "measured", "required"], rows),
    ]
    looser = [gate for gate in facts.gates if gate.looser]
    if looser:
        parts.append(
            "**The recipe allows more to be lost than the default does**: "
            + "; ".join(f"{gate.name()}: {gate.requirement()}" for gate in looser)
            + ".\n"
        )
    return "\n".join([*parts, *_dropped(facts.keep)])


def _dropped(keep: Keep | None) -> list[str]:
    """What of the base the recipe asks nothing about, and what the default would have been."""
    if keep is None:
        return []
    said = []
    if keep.tasks == NO_SIDE:
        said.append(
            "**Nothing was required of what the base could do in other domains' tasks** (by default less than "
            f"{-100 * float(Keep().tasks):g} points may be lost).\n"
        )
    if keep.bits_per_byte == NO_SIDE:
        said.append(
            "**Nothing was required of general text** (by default the bits per byte may rise by at most "
            f"{100 * float(Keep().bits_per_byte):g}%).\n"
        )
    return said


def controls(facts: Facts) -> str:
    """The gain over the base and over each control arm: what is left of it for the reward."""
    reinforced = [stage for stage in facts.stages if stage.get("kind") == "rl"]
    if not facts.controls:
        if not reinforced:
            return ""
        return (
            "## Control arms\n\nThe recipe has none. How much of the gain any optimisation would have brought, "
            "whatever it was paid for, is not known: random rewards alone gave Qwen2.5-Math-7B 21.4 points on "
            "MATH-500, true ones 29.1 (arXiv:2506.10947).\n"
        )
    by_id = {str(stage.get("id")): stage for stage in facts.stages}
    rows = [_over(facts, "base", "where it started", {})]
    for control in facts.controls:
        name = str(control.get("stage"))
        what = ARMS.get(str(control.get("arm")), "{of}").format(of=control.get("of"))
        if name in facts.results["models"]:
            rows.append(_over(facts, name, what, by_id.get(name) or {}))
        else:
            rows.append([name, f"{what}; not asked by the evaluation", *([""] * (len(METRICS) + 1))])
    header = ["gain over", "which is", *named_metrics(facts, METRICS), "seconds of training"]
    return (
        "## Control arms\n\nEach starts from the checkpoint that the stage it is a control of starts from. The gain "
        f"of `{facts.released}` over a control is what its reward brought; over the base, that and everything else. "
        "In points.\n\n" + table(header, rows)
    )


def _over(facts: Facts, against: str, what: str, stage: Mapping[str, Any]) -> list[str]:
    cells = [against, what]
    for metric in METRICS:
        found = gain_between(dict(facts.results), metric, against, facts.released)
        row = None if found is None else dict(zip(("value", "low", "high"), found, strict=True))
        cells.append(interval(row, signed=True))
    return [*cells, number(stage.get("seconds"), 0)]
