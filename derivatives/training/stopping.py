"""SIGTERM for a trainer: it ends its step, writes a checkpoint, and leaves; a step that takes long is left undone.

Whoever ends a stage (a cancellation, a pause, a batch system that wants the machine back) sends SIGTERM and after some
seconds SIGKILL. The trainer notes the signal and looks at it between two steps, where all ranks agree on it. A step may
take minutes, most of it spent on completions, and nothing that a checkpoint holds changes before its update: so after
`FINISH_STEP_S` a trainer that is alone writes the state from before the step, from within the alarm's handler, and ends
the process there. While a step is measured and while the product is written it does the same with the state after the
step. Either way the next run makes the same bytes as one that nobody stopped.

Not done: several ranks that leave within a step or while the product is written; measuring they leave together.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

FINISH_STEP_S = 5.0
"""Seconds that a step has to come to its end. What is left of the grace period is for writing the checkpoint."""
LOOK_AGAIN_S = 1.0
"""After a moment at which nothing could be saved: an update, which is short."""
STOPPED_EXIT = 128 + signal.SIGTERM


class Stop:
    """Notes SIGTERM from `arm` to `disarm`, in the main thread; elsewhere it notes nothing.

    Args:
        save_now: Writes what can be written from within whatever goes on; returns what was done in words, or None when
            this is no moment for it.
    """

    def __init__(self, save_now: Callable[[], str | None]) -> None:
        self.asked = False
        self._save_now = save_now
        self._before: dict[int, Any] = {}

    def arm(self) -> None:
        """From now on a SIGTERM is noted instead of ending the process."""
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        self._before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._note),
            signal.SIGALRM: signal.signal(signal.SIGALRM, self._late),
        }

    def disarm(self) -> None:
        """Put back what the signals did before."""
        if not self._before:
            return
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            signal.setitimer(signal.ITIMER_REAL, FINISH_STEP_S)

    def _late(self, _number: int, _frame: FrameType | None) -> None:
        said = self._save_now()
        if said is None:
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)
            return
        try:
            print(said, file=sys.stderr, flush=True)
        finally:  # also where nobody reads it any more
            os._exit(STOPPED_EXIT)  # the step is in the middle of its work: an orderly end might wait for that
