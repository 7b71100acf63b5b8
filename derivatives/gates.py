"""Release gates: what a derivative must have gained, or must not have lost, read from an evaluation's results.

A gate holds when the lower end of the interval of the gain exceeds `min_gain`. The gain is that of the released
model over the model that the gate names: for accuracies released - against, paired over problems; for bits per
byte against - released (a fall is a gain), of each held-out text, and the worst text counts. Bits per byte are
measured over a whole text and have no interval: the figure itself is compared.

A figure that is missing or is not a number never passes. It does not measure anything: `derivatives.evaluate` does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from configs.errors import UserError
from configs.settings.evaluation import Gate

ROUNDING = 2e-3
"""Gains are means of differences, so they equal the difference of the means but for rounding when written."""


@dataclass(frozen=True)
class GateResult:
    """A gate with the figure that it was judged by; `gain` is None when the evaluation holds no such figure."""

    metric: str
    against: str
    released: str
    required: float
    passed: bool
    gain: float | None
    low: float | None
    high: float | None
    detail: str = ""

    def line(self) -> str:
        """One line for a terminal: metric, measured gain with its interval, what was required."""
        state = "passed" if self.passed else "not passed"
        note = f" ({self.detail})" if self.detail else ""
        return (
            f"gate {self.metric}, {self.released} against {self.against}: {self.measured()}; "
            f"must exceed {self.required:+.3f}; {state}{note}"
        )

    def measured(self) -> str:
        """The gain and its interval, signed."""
        if self.gain is None:
            return "not measured"
        if self.low is None or self.high is None or self.metric == "bits_per_byte":
            return f"gain {self.gain:+.3f}"
        return f"gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_gates(results: dict[str, Any], gates: tuple[Gate, ...], released: str) -> list[GateResult]:
    """Judge every gate; none is skipped when an earlier one fails.

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
    return [_check(results, gate, released) for gate in gates]


def _check(results: dict[str, Any], gate: Gate, released: str) -> GateResult:
    detail = ""
    if gate.metric == "bits_per_byte":
        interval, detail = _worst_text(results, gate.against, released)
    else:
        interval = gain_between(results, gate.metric, gate.against, released)
        if interval is None:
            detail = (
                f"the evaluation holds no {gate.metric} for this pair; see num_samples and models of the evaluate stage"
            )
    gain, low, high = interval or (None, None, None)
    passed = low is not None and math.isfinite(low) and low > gate.min_gain
    return GateResult(gate.metric, gate.against, released, gate.min_gain, passed, gain, low, high, detail)


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
    if not isinstance(row, dict) or any(not isinstance(row.get(key), (int, float)) for key in ("value", "low", "high")):
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
