"""Checkpoints from which a killed stage goes on: `OUT/checkpoints/step-000123/`.

Each is one folder with the state and its digest. It appears under its name only when it is whole and on the disk; it is
read only if its digest is right, else the one before it is taken, with a warning. The last `KEPT` stay. A state is a
nest of dicts, lists, numbers, texts and tensors; reading one never runs code (`weights_only`). It is written while the
run goes on (`Saver`).

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
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from derivatives.training.host_copies import HostCopies, tensors_in
from derivatives.training.ranks import ALONE, Ranks

KEPT = 2
STATE_FILE = "state.pt"
SHARD_FILE = "shard-{:05d}.pt"
DIGEST_FILE = "digest.json"
NAME = re.compile(r"step-(\d{6,})")
FULL_DISK = 2**20
"""Bytes; a writer that failed with less than this left failed for want of space."""

GRACE_S = 10.0
"""How long the first rank waits for the others' shards when its run ends with an error."""
LOOK_S = 0.02
"""Between two looks for them, or for the end of reading."""

log = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of one run beside it, at most one at a time.

    A thread writes, syncs, digests and renames. On the CPU nothing is copied for it: masters and moments change in an
    update only, so they are read while the next step goes forward and back, and `wait_until_read` holds its update.
    From a GPU they are copied to host memory where there is room (`host_copies.py`), and no update waits.

    Of several ranks each leaves the digest of its shard beside it, and the first gives the folder its name when all are
    there. The threads exchange nothing, since exchanges of one group must not cross: how it ended is agreed upon in
    `poll` and `wait`.

    Args:
        out: The stage's folder.
        ranks: Who writes together; all must call `save`, `poll` and `wait` at the same steps.
    """

    def __init__(self, out: Path, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self._root = out / "checkpoints"
        self._step, self._partial = 0, self._root
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._own: Future[None] | None = None
        self._whole: Future[None] | None = None
        self._read, self._given_up = threading.Event(), threading.Event()
        self._read.set()
        self._copies: HostCopies | None = None

    def save(self, step: int, state: dict[str, Any], shard: object = None) -> None:
        """Begin to write the state after `step`, once the one before is written.

        Args:
            step: The step that the state follows.
            state: What all ranks have in common; written by the first.
            shard: What this rank alone has; written if there is more than one.
                Nothing in either may change until `wait_until_read` returns.

        Raises:
            OSError: As `wait`, of this save or of the one before.
        """
        self.wait()
        self._step, self._partial = step, self._root / f".step-{step:06d}.partial"
        files: dict[str, object] = {SHARD_FILE.format(self.ranks.rank): shard} if not self.ranks.alone else {}
        if self.ranks.first:
            files[STATE_FILE] = state
        with self._cleared_where_it_fails():
            _together(self.ranks, self._begin if self.ranks.first else None)
        given = self._copied(files)
        if given is files:
            self._read.clear()
        self._given_up.clear()
        self._own = self._thread.submit(self._write, given)
        self._whole = self._thread.submit(self._publish) if self.ranks.first else self._own

    def save_here(self, step: int, state: dict[str, Any]) -> None:
        """`save` and `wait` in one, by the calling thread, of a process that is alone; for a signal's handler.

        Handing work to a thread takes locks, one of them common to all executors of the process. The handler may have
        interrupted their holder, and would wait for ever. Raises OSError as `wait`.
        """
        assert self.ranks.alone
        self.wait()
        self._step, self._partial = step, self._root / f".step-{step:06d}.partial"
        with self._cleared_where_it_fails():
            self._begin()
            self._write({STATE_FILE: state})
            self._publish()

    def wait_until_read(self) -> None:
        """Until what was given to `save` may change."""
        while not self._read.is_set():  # without its lock: see `save_here`
            time.sleep(LOOK_S)

    def poll(self) -> None:
        """Between two steps: take note of what was written meanwhile. Raises OSError as `wait`."""
        if self._own is None or self._whole is None:
            return
        failed = self._own.done() and self._own.exception() is not None
        ends = self.ranks.gather_numbers([float(self._whole.done()), float(failed)])
        if all(done for done, _ in ends) or any(failed for _, failed in ends):
            self.wait()

    def wait(self) -> None:
        """Until the last checkpoint is whole.

        Raises:
            OSError: The disk is full, or it cannot be written to, for any rank; the checkpoint before is as it was.
        """
        if self._own is None or self._whole is None:
            return
        with self._cleared_where_it_fails():
            _together(self.ranks, self._own.result)
            _together(self.ranks, self._whole.result)
        self._own = self._whole = None

    def close(self) -> None:
        """Let the thread end, where an error ends the run; what it meets itself is only logged.

        Ranks do not agree any more: a checkpoint that the others do not write within `GRACE_S` is given up.
        """
        if self._own is None or self._whole is None:
            return
        wait([self._whole], timeout=0.0 if self._own.exception() is not None else GRACE_S)
        self._given_up.set()
        error = self._whole.exception()
        if error is not None:
            log.warning("the checkpoint after step %d was not written: %s", self._step, error)
        self._own = self._whole = None

    def _begin(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        remove_partial(self._root)
        self._partial.mkdir()

    def _copied(self, files: dict[str, object]) -> dict[str, object]:
        if not any(tensor.is_cuda for tensor in tensors_in(files)):
            return files
        self._copies = self._copies or HostCopies()
        if not self._copies.fit(files):
            log.info("step %d: too little host memory for a copy; the next update waits for the checkpoint", self._step)
            return files
        copied: dict[str, object] = self._copies.take(files)
        return copied

    def _write(self, files: dict[str, object]) -> None:
        try:
            if self._copies is not None:
                self._copies.wait()
            for name, content in files.items():
                with disk_full_as_os_error(self._partial):
                    torch.save(content, self._partial / name)
        finally:
            self._read.set()
        for name in files:
            _sync(self._partial / name)
            note = self._partial / f"{name}.partial"
            note.write_text(_digest(self._partial / name), encoding="ascii")
            os.replace(note, self._note(name))

    def _note(self, name: str) -> Path:
        return self._partial / f"{name}.sha256"

    def _publish(self) -> None:
        """Give the folder its name when all of it is there, and drop all but the last `KEPT`."""
        shards = [] if self.ranks.alone else [SHARD_FILE.format(rank) for rank in range(self.ranks.num)]
        notes = [self._note(name) for name in (STATE_FILE, *shards)]
        while not all(note.exists() for note in notes):
            if self._given_up.wait(LOOK_S):
                raise OSError(errno.EIO, "not every rank has written its part")
        common, *digests = (note.read_text(encoding="ascii") for note in notes)
        content = {"step": self._step, "sha256": common}
        if shards:
            content["shards"] = dict(zip(shards, digests, strict=True))
        for note in notes:
            note.unlink()
        folder = self._root / f"step-{self._step:06d}"
        (self._partial / DIGEST_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")
        for path in (self._partial / DIGEST_FILE, self._partial):
            _sync(path)
        shutil.rmtree(folder, ignore_errors=True)  # one that could not be read, or of a run that was taken back
        os.replace(self._partial, folder)
        _sync(self._root)
        for old in steps(self._root.parent)[:-KEPT]:
            shutil.rmtree(self._root / f"step-{old:06d}", ignore_errors=True)

    @contextmanager
    def _cleared_where_it_fails(self) -> Iterator[None]:
        """A full disk, most often: it must not stay full of half a checkpoint."""
        try:
            yield
        except Exception:
            self._given_up.set()
            if self._whole is not None:
                wait([self._whole])
            self._own = self._whole = None
            if self.ranks.first:
                shutil.rmtree(self._partial, ignore_errors=True)
            raise


def save(out: Path, step: int, state: dict[str, Any], shard: object = None, ranks: Ranks = ALONE) -> Path:
    """Write the state after `step`, as `Saver.save`, and wait for it; its folder. Raises OSError as `Saver.wait`."""
    saver = Saver(out, ranks)
    saver.save(step, state, shard)
    saver.wait()
    return out / "checkpoints" / f"step-{step:06d}"


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
