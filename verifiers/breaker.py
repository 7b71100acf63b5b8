"""Two guards of a pool: one stops a stage whose verifier fails too often, the other says what a silent pool awaits.

The breaker looks at the latest `WINDOW` verdicts and opens when more than the stated share of them are NO_VERDICT; few
faults at the start do not count for more than they are (`MIN_JUDGED`). The watchdog only speaks; hard deadlines are
the pool's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from configs.errors import UserError
from verifiers.api import Outcome, Verdict

WINDOW = 1_000
"""Latest verdicts that the share is taken of."""
MIN_JUDGED = 200
"""The share is taken of at least this many, so that one fault among the first verdicts stops nothing."""

WAITING = "waiting: no verdict for "
"""How the watchdog's lines begin; a flow looks for it in a stage's log, and shows the line beside its progress."""

log = logging.getLogger(__name__)


class TooManyNoVerdicts(UserError):
    """The breaker is open: too many completions got no verdict."""


class Breaker:
    """Counts verdicts and says when there is no point in going on. Not thread-safe; the pool holds a lock.

    Args:
        max_share: Share of the latest verdicts that may be missing, in [0, 1]; 1 never stops.
    """

    def __init__(self, max_share: float) -> None:
        if not 0.0 <= max_share <= 1.0:
            raise UserError(f"max_no_verdict: {max_share!r}; allowed: from 0 to 1")
        self.max_share = max_share
        self._recent: deque[str | None] = deque(maxlen=WINDOW)  # the reason of a missing verdict, None for a verdict
        self._missing = 0

    def note(self, verdict: Verdict, about: str = "") -> TooManyNoVerdicts | None:
        """Count one verdict, on what `about` says for people; the error to stop with when the share is passed."""
        if len(self._recent) == WINDOW and self._recent[0] is not None:
            self._missing -= 1
        missing = verdict.outcome is Outcome.NO_VERDICT
        self._recent.append((verdict.reason or "no_reason") if missing else None)
        self._missing += missing
        if self._missing <= self.max_share * max(len(self._recent), MIN_JUDGED):
            return None
        worst, count = Counter(reason for reason in self._recent if reason is not None).most_common(1)[0]
        last = f"; the last: {about}" if about else ""
        return TooManyNoVerdicts(
            f"max_no_verdict: {self._missing} of the last {len(self._recent)} verdicts are missing; allowed is a "
            f"share of {self.max_share}; {count} times the reason was {worst!r}{last}; "
            "mend the verifier or its data, then run the same command again"
        )


class Watchdog:
    """A thread that speaks when nothing has come for `patience_s` seconds while something is awaited.

    Args:
        patience_s: Seconds without a verdict before it speaks, and between its lines.
        awaited: What is awaited, as one line; empty where nothing is.
        say: Takes the line; a warning in the log by default.
    """

    def __init__(self, patience_s: float, awaited: Callable[[], str], say: Callable[[str], None] = log.warning) -> None:
        self.patience_s, self._awaited, self._say = patience_s, awaited, say
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="verifier-watchdog")

    def start(self) -> None:
        """Begin to watch."""
        self._last = time.monotonic()
        self._thread.start()

    def feed(self) -> None:
        """Something has come, or something new is awaited."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """End the thread. Safe to call twice, and before `start`."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(max(0.01, self._last + self.patience_s - time.monotonic())):
            silent_s = time.monotonic() - self._last
            if silent_s < self.patience_s:
                continue
            awaited = self._awaited()
            if awaited:
                self._say(f"{WAITING}{silent_s:.0f} s; awaited: {awaited}")
            self._last += silent_s  # a feed in between is a verdict, and puts this right
