"""What a stage that runs leaves to be read: its progress, and lines of its log that cannot wait for its end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from configs.stall import STALLED
from verifiers.breaker import WAITING

TOLD_AT_ONCE = (WAITING, "drift alarm, step ")
"""How lines of the log begin that a person should see while the stage runs; the second is `rollout/audit.py`'s."""
TAIL_BYTES = 65536


def last_progress(folder: Path) -> dict[str, Any] | None:
    """The last whole line of progress.jsonl; reads only the end of it, as a long training's grows large."""
    try:
        with (folder / "progress.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            whole = file.read().rpartition(b"\n")[0]
        value = json.loads(whole.rpartition(b"\n")[2])
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def waiting_lines(log: Path, start: int) -> tuple[list[str], int]:
    """What a stage says from this byte of its log on that cannot wait for its end, and the byte to read on from."""
    try:
        if log.stat().st_size == start:
            return [], start
        with log.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
    except OSError:  # removed, or a file system that is away for a moment: no reason to end a training
        return [], start
    lines = whole.decode("utf-8", errors="replace").splitlines()
    told = [line[line.index(mark) :] for line in lines for mark in TOLD_AT_ONCE if mark in line]
    told += [line for line in lines if STALLED.search(line)]
    return told, start + len(whole) + len(newline)
