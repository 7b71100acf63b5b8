"""A stage's turn on its devices, with what a person is told while it waits for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import pause
from flows.device import Turn
from flows.pause import Stopped
from flows.stage_log import last_progress

if TYPE_CHECKING:
    from flows.stages import Session

TOLD_EVERY_S = 60.0
"""How often a stage that waits for its devices says how far those ahead have come."""


def take_turn(session: Session, stage_id: str, devices: Sequence[str], folder: Path) -> Turn:
    """The stage's devices, once it is its turn. Raises Stopped where the run is paused meanwhile."""
    turn, told = Turn(devices, {"run": session.record["id"], "stage": stage_id, "folder": str(folder)}), 0.0

    def waits(ahead: list[dict[str, Any]]) -> None:
        nonlocal told
        if pause.asked(session):
            raise Stopped(stage_id, pause.newest_step(folder))
        if time.monotonic() - told >= TOLD_EVERY_S or not session.waiting:
            told = time.monotonic()
            text = f"{stage_id} waits for the device behind {behind(ahead)}"
            session.wait_for(text)
            session.note(text)

    try:
        turn.acquire(waits)
    finally:
        session.wait_for("")
    return turn


def behind(ahead: Sequence[Mapping[str, Any]]) -> str:
    """`RUN (rl, 43%, about 12 min 00 s)`, and how many more."""
    from flows.terminal import duration

    if not ahead:
        return "a run that has just taken it"
    first = ahead[0]
    line = last_progress(Path(first.get("folder", ""))) or {}
    step, total, seconds = (line.get(name) or 0 for name in ("step", "total", "seconds"))
    facts = [str(first.get("stage", "?"))]
    if step and total:
        facts += [f"{step / total:.0%}", f"about {duration(seconds / step * (total - step))}"]
    more = f" and {len(ahead) - 1} more" if len(ahead) > 1 else ""
    return f"{first.get('run', 'another run')} ({', '.join(facts)}){more}"
