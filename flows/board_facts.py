"""What the run board shows of a stage, read from the stage's folder while others write there.

Every look is bounded: of a progress log only what came since the last look, of the rollouts only the end of the file.
A folder that is missing, torn or being rewritten shows what it has.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from flows.charts import Point

READ_BYTES = 1 << 20
"""Of a progress log at one look; a longer one is taken in over several."""
TAIL_BYTES = 1 << 19
"""Of the rollouts; completions that are longer than this together are not shown."""
MAX_POINTS = 512
MAX_METRICS = 40
NUM_ROLLOUTS = 4
NOT_METRICS = {"step", "total", "seconds"}
NOT_CURVES = {"eta_s", "tokens", "trained_tokens", "lr", "peak_memory_gb", "mfu", "entropy_coefficient"}
FIRST_CURVES = (
    "reward", "solved_fraction", "heldout_accuracy_tasks", "length", "divergence", "loss", "entropy", "audit_gap",
    "forgetting", "margin", "accuracy", "tokens_per_s", "truncated", "no_verdict", "grad_norm", "mismatch",
)  # fmt: skip
"""Curves in this order, the others after them as they come."""
NUM_ALWAYS = 3
"""So many of them are drawn even if they never move."""
CURVE_NAMES = {
    "solved_fraction": "pass rate", "divergence": "KL", "tokens_per_s": "tokens/s", "length": "completion length",
    "heldout_accuracy_tasks": "held-out pass rate", "audit_gap": "audit gap", "grad_norm": "gradient norm",
}  # fmt: skip


class Curve:
    """The points of one metric, thinned evenly as they grow more."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.last: Point | None = None
        self._every, self._num = 1, 0

    def add(self, point: Point) -> None:
        """The next point."""
        self.last = point
        if self._num % self._every == 0:
            self.points.append(point)
        self._num += 1
        if len(self.points) > MAX_POINTS:
            del self.points[1::2]
            self._every *= 2

    def line(self) -> list[Point]:
        """The points, the very last one among them."""
        return [*self.points, *([self.last] if self.last is not None and self.last != self.points[-1] else [])]


class Curves:
    """Every metric of a stage's progress log over its steps, read on with each look.

    Attributes:
        path: The log.
        figures: The latest value of each metric.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin(0)

    def _begin(self, inode: int) -> None:
        self._inode, self._offset = inode, 0
        self._curves: dict[str, Curve] = {}
        self.figures: dict[str, float] = {}

    def look(self) -> bool:
        """Read on; whether there was something new."""
        try:
            with self.path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._offset:  # a resumed stage writes it anew
                    self._begin(facts.st_ino)
                if facts.st_size == self._offset:
                    return False
                file.seek(self._offset)
                whole, newline, _ = file.read(READ_BYTES).rpartition(b"\n")
        except OSError:
            return False
        self._offset += len(whole) + len(newline)
        for text in whole.split(b"\n") if newline else []:
            self._take(parsed(text))
        return bool(newline)

    def drawn(self, limit: int) -> list[tuple[str, list[Point]]]:
        """The most telling curves, at most so many; of the less telling ones none that never moves, and no curve twice.

        A reward that is 1 for what is right and 0 else is the pass rate too.
        """
        found: list[tuple[int, str, list[Point]]] = []
        for name, curve in self._curves.items():
            short = short_name(name)
            rank = FIRST_CURVES.index(short) if short in FIRST_CURVES else len(FIRST_CURVES)
            line = curve.line()
            if any(line == other for _, _, other in found):
                continue
            if len(line) >= 2 and (rank < NUM_ALWAYS or len({y for _, y in line}) > 1):
                found.append((rank, CURVE_NAMES.get(short, short.replace("_", " ")), line))
        found.sort(key=lambda one: one[0])
        return [(name, line) for _, name, line in found[:limit]]

    def _take(self, line: Mapping[str, Any]) -> None:
        step = line.get("step")
        for name, value in line.items():
            known = name in self.figures or len(self.figures) < MAX_METRICS
            if name in NOT_METRICS or not is_number(value) or not is_number(step) or not known:
                continue
            self.figures[name] = value
            if short_name(name) not in NOT_CURVES:
                self._curves.setdefault(name, Curve()).add((float(step), float(value)))


def short_name(metric: str) -> str:
    """A metric without its stage kind.

    >>> short_name("rl/reward"), short_name("pretrain/loss_of/python")
    ('reward', 'loss_of/python')
    """
    return metric.partition("/")[2] or metric


@dataclass(frozen=True)
class Rollout:
    """A completion as its stage kept it for people to read (`rollouts.jsonl`); all of it is hostile text."""

    step: str
    task: str
    prompt: str
    answer: str
    completion: str
    outcome: str
    reason: str
    extracted: str


@dataclass
class Rollouts:
    """The latest completions of an rl stage, of different outcomes where there are."""

    path: Path
    latest: tuple[Rollout, ...] = ()
    too_long: bool = False
    """Whether the file's end holds no whole completion."""
    _seen: tuple[int, int] = (0, 0)

    def look(self) -> bool:
        """Read the end of the file, if it has changed; whether it had."""
        try:
            facts = self.path.stat()
            if (facts.st_size, facts.st_mtime_ns) == self._seen:
                return False
            with self.path.open("rb") as file:
                start = max(0, facts.st_size - TAIL_BYTES)
                file.seek(start)
                text = file.read(TAIL_BYTES)
        except OSError:
            return False
        self._seen = (facts.st_size, facts.st_mtime_ns)
        lines = text.split(b"\n")[(1 if start else 0) : -1]  # the first may be cut, the last may be in the making
        found = [one for one in map(parsed, lines) if "completion" in one]
        self.too_long = bool(text) and not found
        newest = [one for one in found if found and one.get("step") == found[-1].get("step")]
        self.latest = tuple(_rollout(one) for one in _varied(newest, NUM_ROLLOUTS))
        return True


def _varied(samples: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """One of each outcome first, then one of each problem, then any, in the file's order."""
    chosen: list[int] = []
    for key in (("outcome",), ("task", "outcome"), ("task", "outcome", "completion")):
        seen = {tuple(str(samples[place].get(name)) for name in key) for place in chosen}
        for place, sample in enumerate(samples):
            what = tuple(str(sample.get(name)) for name in key)
            if what not in seen and len(chosen) < limit:
                seen.add(what)
                chosen.append(place)
    return [samples[place] for place in sorted(chosen)]


def _rollout(sample: Mapping[str, Any]) -> Rollout:
    names = ("step", "task", "prompt", "answer", "completion", "outcome", "reason", "extracted")
    return Rollout(**{name: "" if sample.get(name) is None else str(sample[name]) for name in names})


def parsed(text: bytes) -> dict[str, Any]:
    """A line as a JSON object; empty where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a figure that can be shown."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
