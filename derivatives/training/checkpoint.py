"""Checkpoints from which a killed stage goes on: `OUT/checkpoints/step-000123/`.

Each is one folder with the state and its digest. It appears under its name only when it is whole and on the disk; it is
read only if its digest is right, else the one before it is taken, with a warning. The last `KEPT` stay. A state is a
nest of dicts, lists, numbers, texts and tensors; reading one never runs code (`weights_only`).

Not done: states that are spread over several processes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

KEPT = 2
STATE_FILE = "state.pt"
DIGEST_FILE = "digest.json"
NAME = re.compile(r"step-(\d{6,})")
FULL_DISK = 2**20
"""Bytes; a writer that failed with less than this left failed for want of space."""

log = logging.getLogger(__name__)


def save(out: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` and drop all but the last `KEPT` checkpoints."""
    root = out / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    remove_partial(root)
    folder = root / f"step-{step:06d}"
    partial = root / f".step-{step:06d}.partial"
    partial.mkdir()
    try:
        with disk_full_as_os_error(root):
            torch.save(state, partial / STATE_FILE)
        content = json.dumps({"step": step, "sha256": _digest(partial / STATE_FILE)})
        (partial / DIGEST_FILE).write_text(content + "\n", encoding="utf-8")
        for path in (partial / STATE_FILE, partial / DIGEST_FILE, partial):
            _sync(path)
    except BaseException:  # a full disk, most often: it must not stay full of half a checkpoint
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)  # one that could not be read, or of a run that was taken back
    os.replace(partial, folder)
    _sync(root)
    for old in steps(out)[:-KEPT]:
        shutil.rmtree(root / f"step-{old:06d}", ignore_errors=True)
    return folder


def load_latest(out: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest whole checkpoint, its tensors on the CPU; None if there is none."""
    for step in reversed(steps(out)):
        folder = out / "checkpoints" / f"step-{step:06d}"
        try:
            digest = json.loads((folder / DIGEST_FILE).read_text(encoding="utf-8"))
            if digest["sha256"] != _digest(folder / STATE_FILE):
                raise ValueError("its digest is wrong")
            return step, torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            log.warning("checkpoint %s cannot be read (%s); trying the one before it", folder, error)
    return None


def steps(out: Path) -> list[int]:
    """Steps of the checkpoints that are there, oldest first."""
    root = out / "checkpoints"
    if not root.is_dir():
        return []
    return sorted(int(match[1]) for path in root.iterdir() if (match := NAME.fullmatch(path.name)))


def remove_all(out: Path) -> None:
    """Drop all checkpoints of a finished stage."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


def remove_partial(root: Path) -> None:
    """Drop what a killed process left half written."""
    for path in root.glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def disk_full_as_os_error(folder: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise on a full disk into the OSError that it is."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(folder).free < FULL_DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
