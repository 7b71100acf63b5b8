"""Where the time of a build goes: seconds of wall clock and of this process's processors, by step.

Steps may lie within one another; each counts only its own time. Kept apart from the product, whose bytes depend on
nothing that a clock says.
"""

from __future__ import annotations

import resource
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

    def as_dict(self, **figures: Any) -> dict[str, Any]:
        """Seconds of each step and of all, with the processes below this one, and whatever else is given."""
        wall, processor = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        below = resource.getrusage(resource.RUSAGE_CHILDREN)
        steps = {name: {"seconds": round(self._wall[name], 3), "processor_seconds": round(self._processor[name], 3)}
                 for name in self._wall}
        return {"steps": steps, "seconds": round(wall, 3), "processor_seconds": round(processor, 3),
                "processor_seconds_of_workers": round(below.ru_utime + below.ru_stime, 3), **figures}

    def _switch(self) -> None:
        now = time.perf_counter(), time.process_time()
        if self._open:
            # Floats in a Counter: it is a dict that begins at 0.
            self._wall[self._open[-1]] += now[0] - self._last[0]  # type: ignore[assignment]
            self._processor[self._open[-1]] += now[1] - self._last[1]  # type: ignore[assignment]
        self._last = now
