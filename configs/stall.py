"""A stage that makes no progress for long says where it hangs: the stack of each of its threads goes to its log.

The clock is the interpreter's own (`faulthandler`), a thread that needs no lock of Python's, so that it also speaks
where a collective, a driver or a library hangs and holds everything else. Whoever makes progress calls `alive`:
`configs.stage.Progress` with each of its lines, and on every rank the trainer with each step.
"""

from __future__ import annotations

import faulthandler
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STALLED = re.compile(r"Timeout \((\d+:\d\d:\d\d(?:\.\d+)?)\)!$")
"""The line before the stacks, with the time without progress. A flow looks for it."""

_after_s: float | None = None


def watch(after_s: float | None) -> None:
    """Speak after so many seconds without `alive`, again and again; None stops watching."""
    global _after_s
    _after_s = after_s
    if after_s is None:
        faulthandler.cancel_dump_traceback_later()
    alive()


@contextmanager
def paused() -> Iterator[None]:
    """For as long as this lasts, silence is no stall: whoever waits here has a limit of its own."""
    if _after_s is None:
        yield
        return
    faulthandler.cancel_dump_traceback_later()
    try:
        yield
    finally:
        alive()


def alive() -> None:
    """Something was done: the clock begins anew. Does nothing where no stage is watched."""
    if _after_s is not None:
        faulthandler.dump_traceback_later(_after_s, repeat=True, file=sys.__stderr__ or sys.stderr)
