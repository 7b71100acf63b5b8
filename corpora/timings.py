"""Where the time of a build goes: seconds of wall clock and of the processors, by step, added up over all workers.

Steps may lie within one another; each counts only its own time. Kept apart from the product, whose bytes depend on
nothing that a clock says.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Timings:
    """Seconds by step."""

    def __init__(self) -> None:
        self._wall: Counter[str] = Counter()
        self._processor: Counter[str] = Counter()
        self._open: list[str] = []
        self._start = self._last = time.perf_counter(), time.process_time()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what runs within for a step. Nothing may be yielded from inside."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def steps(self) -> dict[str, tuple[float, float]]:
        """Seconds and processor seconds of each step, for `add`."""
        return {name: (self._wall[name], self._processor[name]) for name in self._wall}

    def add(self, steps: dict[str, tuple[float, float]]) -> None:
        """Count what a task measured, wherever it ran."""
        for name, (wall, processor) in steps.items():
            self._wall[name] += wall  # type: ignore[assignment]
            self._processor[name] += processor  # type: ignore[assignment]

    def as_dict(self, **figures: Any) -> dict[str, Any]:
        """Seconds of each step, of all and of this process, and whatever else is given."""
        wall, processor = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        steps = {name: {"seconds": round(self._wall[name], 3), "processor_seconds": round(self._processor[name], 3)}
                 for name in self._wall}
        return {"steps": steps, "seconds": round(wall, 3), "processor_seconds": round(processor, 3), **figures}

    def _switch(self) -> None:
        now = time.perf_counter(), time.process_time()
        if self._open:
            # Floats in a Counter: it is a dict that begins at 0.
            self._wall[self._open[-1]] += now[0] - self._last[0]  # type: ignore[assignment]
            self._processor[self._open[-1]] += now[1] - self._last[1]  # type: ignore[assignment]
        self._last = now
