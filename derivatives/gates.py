"""Release gates: what a derivative must have gained, and what it must not have lost, read from an evaluation's results.

A gate of the recipe holds when the lower end of the interval of the gain exceeds `min_gain`. The gain is that of the
released model over the model that the gate names: for accuracies released - against, paired over problems; for bits per
byte against - released (a fall is a gain), of each held-out text, and the worst text counts; without an interval the
figure itself is compared.

Beside them stand the gates of `keep`, on by default: of the other domains' tasks that the base could do, the interval's
lower end lies above -2 points; the bits per byte of each held-out text rise by at most 1%, by the interval's upper end.
A recipe may loosen or drop a side only by naming it, and then the line says so.

What an accuracy's interval cannot know counts against the release: verdicts on the other model that are missing, which
may all have been right; and that few problems may show no loss by chance, where the bootstrap of equal answers has no
width at all.

A figure that is missing or is not a number never passes. It does not measure anything: `derivatives.evaluate` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.evaluation import EvaluateStage, Gate, Keep
from derivatives.evaluation.statistics import wilson

ROUNDING = 2e-3
"""Gains are means of differences, so they equal the difference of the means but for rounding when written."""


USUAL_CONFIDENCE = float(EvaluateStage.model_fields["confidence"].default)
"""Level below which a gate's line says it: a lower one makes intervals narrower, and gates easier."""
KEPT = "kept"
RISE = "bits_per_byte rise"
"""Metric of a gate on a relative rise, which is a loss: its gain is the rise with the other sign."""


@dataclass(frozen=True)
class GateResult:
    """A gate with the figure that it was judged by; `gain` is None when the evaluation holds no such figure.

    Attributes:
        metric: What was compared.
        against: The model that the released one is compared with.
        released: The released model.
        required: What the interval's lower end must exceed; of a relative rise, at least.
        passed: Whether it holds.
        gain: The gain: accuracies as fractions, bits per byte in bits, a relative rise as a fraction, negative.
        low: Lower end of its interval.
        high: Upper end; both equal the gain where there is no interval.
        detail: What a reader must know besides.
        default: What `keep` requires where a recipe says nothing; None for a gate of the recipe's own.
        tasks: The one set of tasks that was compared; None for all.
    """

    metric: str
    against: str
    released: str
    required: float
    passed: bool
    gain: float | None
    low: float | None
    high: float | None
    detail: str = ""
    default: float | None = None
    tasks: str | None = None

    @property
    def looser(self) -> bool:
        """Whether the recipe allows a larger loss than the default."""
        return self.default is not None and self.required < self.default

    def line(self) -> str:
        """One line for a terminal: metric, measured gain with its interval, what was required."""
        state = "passed" if self.passed else "not passed"
        note = f" ({self.detail})" if self.detail else ""
        return (
            f"gate {self.name()}, {self.released} against {self.against}: {self.measured()}; "
            f"must {self.requirement()}; {state}{note}"
        )

    def name(self) -> str:
        """The metric, and the one set it is about."""
        return f"{self.metric} of {self.tasks}" if self.tasks else self.metric

    def measured(self) -> str:
        """The gain and its interval, signed; of a relative rise the rise, in percent."""
        if self.gain is None or self.low is None or self.high is None:
            return "not measured" if self.gain is None else f"gain {self.gain:+.3f}"
        if self.metric == RISE:
            value, low, high = (_percent(-one) for one in (self.gain, self.high, self.low))
            return value if low == high else f"{value} [{low}, {high}]"
        if self.metric == "bits_per_byte" or not math.isfinite(self.low):
            return f"gain {self.gain:+.3f}"
        return f"gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def requirement(self) -> str:
        """What was required, and beside a looser margin the default one."""
        if self.metric == RISE:
            allowed = f"rise by at most {_percent(-self.required)}"
            return allowed + (f", looser than the default {_percent(-(self.default or 0.0))}" if self.looser else "")
        if self.default is None:
            return f"exceed {self.required:+.3f}"
        allowed = f"lose less than {_points(self.required)}"
        return allowed + (f", looser than the default {_points(self.default)}" if self.looser else "")

    def as_dict(self) -> dict[str, Any]:
        """For metrics.json: all fields, and the two in words."""
        return {**asdict(self), "measured": self.measured(), "requirement": self.requirement()}


def _percent(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}%"


def _points(share: float) -> str:
    return f"{-100 * share + 0.0:.1f} points"


def check_gates(
    results: dict[str, Any], gates: tuple[Gate, ...], released: str, keep: Keep | None = None
) -> list[GateResult]:
    """Judge every gate; none is skipped when an earlier one fails.

    Args:
        results: `results.json` of the evaluation.
        gates: The recipe's own.
        released: The model that is to be released.
        keep: What of the base must be left; None asks for nothing.

    Raises:
        UserError: The evaluation lacks `base`, the released model or one that a gate names, or contradicts itself.
    """
    models = results.get("models", {})
    needed = dict.fromkeys(["base", released, *(gate.against for gate in gates)])
    missing = [name for name in needed if name not in models]
    if missing:
        raise UserError(
            f"evaluation: {', '.join(missing)} was not evaluated (it holds {', '.join(models) or 'nothing'}); "
            "add it to the models of the evaluate stage"
        )
    own = [_check(results, gate, released) for gate in gates]
    return own + ([] if keep is None else [*_kept(results, keep, released), *_texts_kept(results, keep, released)])


def _check(results: dict[str, Any], gate: Gate, released: str) -> GateResult:
    detail = ""
    if gate.metric == "bits_per_byte":
        interval, detail = _worst_text(results, gate.against, released)
    elif gate.tasks is not None:
        interval, detail = _of_one_set(results, gate, released)
    else:
        interval = gain_between(results, gate.metric, gate.against, released)
        if interval is None:
            asked = _SETTING.get(gate.metric, "models")
            detail = f"the evaluation holds no {gate.metric} for this pair; see {asked} of the evaluate stage"
    if interval is not None and gate.metric != "bits_per_byte":
        interval, detail = _cautious(results, gate.metric, gate.tasks, gate.against, released, interval, detail)
    gain, low, high = interval or (None, None, None)
    passed = low is not None and math.isfinite(low) and low > gate.min_gain
    return GateResult(
        gate.metric, gate.against, released, gate.min_gain, passed, gain, low, high, detail, tasks=gate.tasks
    )


_SETTING = {"pass@k": "num_samples", "maj@k": "num_samples", "kept": "kept_tasks"}


def _kept(results: dict[str, Any], keep: Keep, released: str) -> list[GateResult]:
    """The gate on what the base could do of other domains' tasks; none where the recipe says so."""
    if isinstance(keep.tasks, str):
        return []
    interval = gain_between(results, KEPT, "base", released)
    detail = ""
    if interval is None:
        detail = "the evaluation asks no kept_tasks; set them, or keep.tasks=none on the release"
    elif not any(row.get("correct", row.get("value")) for row in (results["models"]["base"].get(KEPT) or {}).values()):
        detail = "base solves none of them, so that nothing could be lost: this shows nothing"
    if interval is not None:
        interval, detail = _cautious(results, KEPT, None, "base", released, interval, detail)
    gain, low, high = interval or (None, None, None)
    passed = low is not None and math.isfinite(low) and low > keep.tasks
    return [GateResult(KEPT, "base", released, keep.tasks, passed, gain, low, high, detail, float(Keep().tasks))]


def _cautious(
    results: Mapping[str, Any], metric: str, tasks: str | None, against: str, released: str, found: Interval,
    detail: str,
) -> tuple[Interval, str]:  # fmt: skip
    """The interval with the lower end that is really shown, and what a reader must know of it."""
    if against == released:
        return found, detail
    value, low, high = found
    row = _row(results["models"][against], metric, tasks)
    told, total = [detail] if detail else [], row.get("total", row.get("problems"))
    confidence = float(results.get("confidence", USUAL_CONFIDENCE))
    if _is_number(total) and total > 0:
        shown = value - wilson(0, int(total), confidence)[1]
        if shown < low:
            low = shown
            told.append(f"{total} problems cannot show more")
        if missing := row.get("no_verdict") or 0:
            low -= missing / total
            told.append(f"{missing} of {total} problems lack a verdict on {against} and count as solved")
    if confidence < USUAL_CONFIDENCE:
        told.append(f"at {confidence:.0%} confidence instead of {USUAL_CONFIDENCE:.0%}")
    return (value, low, high), "; ".join(told)


def _row(model: Mapping[str, Any], metric: str, tasks: str | None) -> Mapping[str, Any]:
    """A model's own figure of a gate's metric; empty where it has none."""
    if tasks is not None:
        row = (model.get("by_task" if metric == "pass@1" else KEPT) or {}).get(_set_name(tasks))
    else:
        row = model.get("kept_all" if metric == KEPT else metric)
    return row if isinstance(row, dict) else {}


def _set_name(tasks: str) -> str:
    """As results name a set: a file of the user's without its folder."""
    return Path(tasks).name if tasks.endswith(".jsonl") else tasks


def _texts_kept(results: dict[str, Any], keep: Keep, released: str) -> list[GateResult]:
    """A gate for each held-out text on how much the bits per byte rise; none where the recipe says so."""
    if isinstance(keep.bits_per_byte, str):
        return []
    default, required = -float(Keep().bits_per_byte), -keep.bits_per_byte
    before = results["models"]["base"].get("bits_per_byte") or {}
    after = results["models"][released].get("bits_per_byte") or {}
    found = []
    for text in sorted({*before, *after}) or [""]:
        rise, detail = _rise(results, text, before, after, released), ""
        if rise is None:
            detail = "not measured of both models; see heldout_text of the evaluate stage"
        elif rise[1] == rise[2]:
            detail = "without an interval"
        gain, low, high = (-rise[0], -rise[2], -rise[1]) if rise is not None else (None, None, None)
        passed = low is not None and math.isfinite(low) and low >= required
        found.append(
            GateResult(RISE, "base", released, required, passed, gain, low, high, detail, default, text or None)
        )
    return found


def _rise(
    results: dict[str, Any], text: str, before: Mapping[str, Any], after: Mapping[str, Any], released: str
) -> Interval | None:
    """Relative rise of the bits per byte of a text over the base, with its interval where there is one."""
    if released == "base":
        return (0.0, 0.0, 0.0)
    pair = (results.get("pairwise") or {}).get(f"base->{released}") or {}
    found = _figure(pair.get("bits_per_byte"), text)
    if found is not None:
        return found
    given = (before.get(text, math.nan), after.get(text, math.nan))
    numbers = [float(one) if _is_number(one) else math.nan for one in given]
    if not all(math.isfinite(number) for number in numbers) or numbers[0] <= 0:
        return None
    rise = numbers[1] / numbers[0] - 1.0
    return (rise, rise, rise)


def _of_one_set(results: dict[str, Any], gate: Gate, released: str) -> tuple[Interval | None, str]:
    """Gain on one set of tasks: paired where the evaluation holds it, else from the two intervals."""
    pair = (results.get("pairwise") or {}).get(f"{gate.against}->{released}") or {}
    key, paired = ("by_task", "by_task") if gate.metric == "pass@1" else (KEPT, "kept_by_task")
    name = _set_name(str(gate.tasks))
    found = _figure(pair.get(paired), name)
    if found is not None:
        return found, ""
    rows = [(results["models"][model].get(key) or {}).get(name) or {} for model in (gate.against, released)]
    if any(not _is_number(row.get(end)) for row in rows for end in ("value", "low", "high")):
        return None, f"the evaluation asks no set {gate.tasks} of both models"
    return unpaired(rows[0], rows[1]), "the two models' intervals taken as independent"


def unpaired(before: Mapping[str, float], after: Mapping[str, float]) -> Interval:
    """Difference of two proportions with an interval made of theirs; wider than a paired one where they go together.

    Source: Newcombe (1998), "Interval estimation for the difference between independent proportions", method 10.

    >>> before, after = {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": 0.7, "low": 0.6, "high": 0.8}
    >>> [round(one, 3) for one in unpaired(before, after)]
    [0.2, 0.059, 0.341]
    """
    gain = after["value"] - before["value"]
    down = math.hypot(after["value"] - after["low"], before["high"] - before["value"])
    up = math.hypot(after["high"] - after["value"], before["value"] - before["low"])
    return (gain, gain - down, gain + up)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


Interval = tuple[float, float, float]
"""Value, lower end, upper end."""


def gain_between(results: dict[str, Any], metric: str, against: str, released: str) -> Interval | None:
    """Gain of `released` over `against` with its interval, from the pairwise table or the gains over the first model.

    Raises:
        UserError: The gain is not the difference of the two models' figures (a table made for another pair).
    """
    if against == released:
        return (0.0, 0.0, 0.0)
    pairwise = results.get("pairwise") or {}
    gains = results.get("gains") or {}
    forward = _figure(pairwise.get(f"{against}->{released}"), metric)
    backward = _figure(pairwise.get(f"{released}->{against}"), metric)
    over_first = _figure(gains.get(released), metric) if against not in gains else None
    if forward is None and backward is not None:
        forward = (-backward[0], -backward[2], -backward[1])
    found = forward or over_first
    if found is not None and metric == "pass@1":  # pass@k may be paired over fewer problems than a model's own figure
        _check_consistent(results, metric, against, released, found[0])
    return found


def _figure(table: Any, metric: str) -> Interval | None:
    if not isinstance(table, dict):
        return None
    row = table.get(metric)
    if not isinstance(row, dict) or any(not _is_number(row.get(key)) for key in ("value", "low", "high")):
        return None
    return (float(row["value"]), float(row["low"]), float(row["high"]))


def _check_consistent(results: dict[str, Any], metric: str, against: str, released: str, gain: float) -> None:
    after, before = ((results["models"][name].get(metric) or {}).get("value") for name in (released, against))
    if after is None or before is None:
        return
    if not abs(after - before - gain) <= ROUNDING:
        raise UserError(
            f"evaluation: the {metric} gain of {released} over {against} is given as {gain:+.4f}, but the figures "
            f"are {after:.4f} and {before:.4f}; run the evaluate stage again"
        )


def _worst_text(results: dict[str, Any], against: str, released: str) -> tuple[Interval | None, str]:
    before = results["models"][against].get("bits_per_byte") or {}
    after = results["models"][released].get("bits_per_byte") or {}
    if not before or set(before) != set(after):
        lacking = ", ".join(sorted(set(before) ^ set(after))) or "any text"
        return None, f"bits per byte of {lacking} are missing; see heldout_text of the evaluate stage"
    gains = {text: _difference(before[text], after[text]) for text in sorted(before)}
    text, worst = min(gains.items(), key=lambda item: item[1])
    return (worst, worst, worst), f"worst text: {text}"


def _difference(before: Any, after: Any) -> float:
    """before - after; minus infinity when either is not a finite number, so that it counts as the worst."""
    numbers = [float(value) if isinstance(value, (int, float)) else math.nan for value in (before, after)]
    return numbers[0] - numbers[1] if all(math.isfinite(number) for number in numbers) else -math.inf
