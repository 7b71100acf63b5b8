"""Checkpoints from which a killed stage goes on: `OUT/checkpoints/step-000123/`.

Each is one folder with the state and its digest. It appears under its name only when it is whole and on the disk; it is
read only if its digest is right, else the one before it is taken, with a warning. The last `KEPT` stay. A state is a
nest of dicts, lists, numbers, texts and tensors; reading one never runs code (`weights_only`).

Several ranks write one folder together: the first what all have in common, each a shard of its own. They agree on what
is whole, so that all go on from the same step or fail together, and any number of ranks can read what another number
wrote (`MasterAdamW.load_shards`).
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from derivatives.training.ranks import ALONE, Ranks

KEPT = 2
STATE_FILE = "state.pt"
SHARD_FILE = "shard-{:05d}.pt"
DIGEST_FILE = "digest.json"
NAME = re.compile(r"step-(\d{6,})")
FULL_DISK = 2**20
"""Bytes; a writer that failed with less than this left failed for want of space."""

log = logging.getLogger(__name__)


def save(out: Path, step: int, state: dict[str, Any], shard: object = None, ranks: Ranks = ALONE) -> Path:
    """Write the state after `step` and drop all but the last `KEPT` checkpoints.

    Args:
        out: The stage's folder.
        step: The step that the state follows.
        state: What all ranks have in common; written by the first.
        shard: What this rank alone has; written if there is more than one.
        ranks: Who writes together. All must call it, and if one fails, it raises on all.

    Raises:
        OSError: The disk is full, or it cannot be written to; what was there before is as it was.
    """
    root = out / "checkpoints"
    folder, partial = root / f"step-{step:06d}", root / f".step-{step:06d}.partial"

    def begin() -> None:
        root.mkdir(parents=True, exist_ok=True)
        remove_partial(root)
        partial.mkdir()

    def write() -> dict[str, str]:
        files: dict[str, object] = {SHARD_FILE.format(ranks.rank): shard} if not ranks.alone else {}
        if ranks.first:
            files[STATE_FILE] = state
        return {name: _write(partial / name, content) for name, content in files.items()}

    def publish() -> None:
        content = {"step": step, "sha256": digests.pop(STATE_FILE), **({"shards": digests} if digests else {})}
        (partial / DIGEST_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")
        for path in (partial / DIGEST_FILE, partial):
            _sync(path)
        shutil.rmtree(folder, ignore_errors=True)  # one that could not be read, or of a run that was taken back
        os.replace(partial, folder)
        _sync(root)
        for old in steps(out)[:-KEPT]:
            shutil.rmtree(root / f"step-{old:06d}", ignore_errors=True)

    try:
        _together(ranks, begin if ranks.first else None)
        digests = {name: digest for found in _together(ranks, write) for name, digest in found.items()}
        _together(ranks, publish if ranks.first else None)
    except BaseException:  # a full disk, most often: it must not stay full of half a checkpoint
        if ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _together(ranks: Ranks, work: Callable[[], Any] | None) -> list[Any]:
    """Do this rank's part; what each rank's gave. Raises on every rank if it failed on any."""
    result, failure = None, None
    try:
        result = work() if work is not None else None
    except (OSError, RuntimeError, ValueError) as error:
        failure = error
    described = None if failure is None else (getattr(failure, "errno", None) or errno.EIO, str(failure))
    outcomes = ranks.gather((result, described))
    if failure is not None:
        raise failure
    for rank, (_, other) in enumerate(outcomes):
        if other is not None:
            raise OSError(other[0], f"rank {rank}: {other[1]}")
    return [found for found, _ in outcomes]


def _write(path: Path, content: object) -> str:
    """Put a file on the disk; its digest."""
    with disk_full_as_os_error(path.parent):
        torch.save(content, path)
    _sync(path)
    return _digest(path)


def load_latest(out: Path, ranks: Ranks = ALONE) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint that is whole for every rank, its tensors on the CPU; None if there is none.

    Where several ranks wrote it, `shards` in the state lists what each gave, by rank.
    """
    for step in reversed(ranks.gather(steps(out))[0]):
        folder = out / "checkpoints" / f"step-{step:06d}"
        state, problem = None, None
        try:
            state = _read(folder, ranks)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        problems: list[str | None] = ranks.gather(problem)
        if state is not None and not any(problems):
            return step, state
        reason = next(filter(None, problems), "no reason was given")
        log.warning("checkpoint %s cannot be read (%s); trying the one before it", folder, reason)
    return None


def _read(folder: Path, ranks: Ranks) -> dict[str, Any]:
    content = json.loads((folder / DIGEST_FILE).read_text(encoding="utf-8"))
    digests: dict[str, str] = {STATE_FILE: content["sha256"], **content.get("shards", {})}
    for place, (name, digest) in enumerate(digests.items()):
        # Each file is read whole by one rank; all hear of it.
        if place % ranks.num == ranks.rank and digest != _digest(folder / name):
            raise ValueError(f"the digest of {name} is wrong")
    spread = len(digests) > 1 or not ranks.alone  # then only some rows of each tensor are wanted
    state: dict[str, Any]
    state, *shards = (torch.load(folder / name, map_location="cpu", weights_only=True, mmap=spread) for name in digests)
    return {**state, "shards": shards} if shards else state


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
