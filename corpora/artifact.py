"""Files and folders that appear whole or not at all, so that a task may be done twice, killed, or done by two workers.

A task writes beside the place of what it makes and gives it its name last. Whoever finds the name there leaves it
alone; of two workers that have the same task (a scheduler may think one dead) the second loses the race, and no byte is
another one, because tasks are functions of what was published before them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PARTIAL = "partial-"
"""Begins the name of what is being written; no finished artifact's name begins so."""


def make(final: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or a folder at the path that it is given, then call it `final`.

    What is there already is left alone. `final.parent` must be there.
    """
    if final.exists():
        return
    # Drawn, because the workers of several machines have the same process numbers.
    partial = final.with_name(f"{PARTIAL}{uuid.uuid4().hex}-{final.name}")
    try:
        write(partial)
        publish(partial, final)
    except OSError:
        if not final.exists():
            raise
    finally:
        remove(partial)


def publish(partial: Path, final: Path) -> None:
    """Give a finished file or folder its name, after its bytes are on disk; a reader sees all of it or nothing."""
    for path in [partial, *(partial.rglob("*") if partial.is_dir() else ())]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    os.replace(partial, final)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; one that is not there, or going at this moment, is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what was being written below a folder when its writers were killed.

    A writer on another machine may still be alive: it finds nothing to give a name to, and fails.
    """
    for path in list(folder.rglob(f"{PARTIAL}*")):
        away = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}-removed")
        try:
            os.replace(path, away)  # at once, so that nobody publishes a half of it
        except FileNotFoundError:
            continue
        remove(away)


def write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> None:
    """Write arrays one after another into one file."""
    buffer = io.BytesIO()  # numpy writes to real files in its own way, which loses the error number of a full disk
    for array in arrays:
        np.save(buffer, array)
    with path.open("wb") as file:
        file.write(buffer.getbuffer())


def read_arrays(path: Path, num: int) -> Sequence[np.ndarray]:
    """The first `num` arrays of a file of `write_arrays`."""
    with path.open("rb") as file:
        return [np.load(file) for _ in range(num)]


def write_state(place: Path, state: dict[str, Any]) -> None:
    """Write what was counted into a folder that is being made; `read_state` reads it."""
    # Not sorted: the ledger's lines keep their form.
    (place / "state.json").write_text(json.dumps(state), encoding="utf-8")


def read_state(place: Path) -> dict[str, Any]:
    """What was counted for the artifact at a place."""
    found: dict[str, Any] = json.loads((place / "state.json").read_text(encoding="utf-8"))
    return found
