"""Whose turn it is on a device: one stage at a time computes on each, in the order in which they asked.

A slot of a device is a locked file of this machine (`flock`, as in `flows/lease.py`): the stage's processes inherit it,
so that it falls when the last of them has ended, is never lost while one of them lives, and holds among runs from a
terminal, `derive up` and Prefect workers alike, with or without a server. Whoever waits holds a locked ticket, and the
oldest ticket is served first. What the holder is doing stands in the slot.

    FOLDER/cuda-0.0                 the slot of the first GPU; cuda-0.1 is a second one, with DERIVE_SLOTS=2
    FOLDER/waiting/TIME-PROCESS     a ticket

FOLDER is $DERIVE_DEVICES, else a folder per user below the machine's temporary one. GPUs count by CUDA_VISIBLE_DEVICES.
A run on the CPU profile takes a slot only where DERIVE_SLOTS says how many there are, as `derive up` does.

Not covered: other users, containers that do not share the folder, other machines (whose devices are others).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.machine import Machine

SLOTS_VARIABLE = "DERIVE_SLOTS"
FOLDER_VARIABLE = "DERIVE_DEVICES"
WITHOUT_DEVICE = ("corpus", "release")
"""Kinds of stages that leave a GPU alone."""
POLL_S = 0.5


def num_slots() -> int | None:
    """Runs that may compute on one device at a time, from the environment; None where it does not say."""
    given = os.environ.get(SLOTS_VARIABLE, "")
    if not given:
        return None
    if not given.isdigit() or int(given) < 1:
        raise UserError(f"{SLOTS_VARIABLE}: {given!r} is no number of runs; give 1 or more, or unset it")
    return int(given)


def devices_of(machine: Machine, kind: str) -> tuple[str, ...]:
    """Devices that a stage of this kind takes; none where it may run beside others."""
    if machine.device != "cuda":
        return () if num_slots() is None else ("cpu",)
    if kind in WITHOUT_DEVICE:
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        visible = [name.strip() for name in named.split(",") if name.strip()]
    else:
        there = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
        visible = sorted(there, key=lambda name: (len(name), name)) or ["0"]  # 2 before 10
    number = len(visible) if machine.rollout is not None else machine.for_kind(kind).num_processes
    # The first ones in the given order are those that ranks take; sorted only so that all lock them in one order.
    return tuple(f"cuda-{name}" for name in sorted(visible[:number]))


class Turn:
    """The right to compute on some devices, all of them or none. Release it, always.

    Args:
        names: The devices; with none there is nothing to wait for.
        about: Who takes them: `run`, `stage` and `folder`, for those who wait behind.
    """

    def __init__(self, names: Sequence[str], about: Mapping[str, Any]) -> None:
        given = os.environ.get(FOLDER_VARIABLE)
        self.folder = Path(given) if given else Path(tempfile.gettempdir()) / f"derive-devices-{os.getuid()}"
        self.names, self.num_slots, self.about = tuple(names), num_slots() or 1, dict(about)
        self.file_descriptors: list[int] = []

    def acquire(self, on_wait: Callable[[list[dict[str, Any]]], None]) -> None:
        """Wait for the turn. `on_wait` is called every half second with those ahead: who computes, then who waits."""
        if not self.names:
            return
        waiting = self.folder / "waiting"
        waiting.mkdir(parents=True, exist_ok=True)
        ticket = waiting / f"{time.time_ns():020d}-{os.getpid()}"
        descriptor = self._queue(ticket)
        try:
            while True:
                ahead = self._ahead(ticket)
                if not ahead and self._take():
                    return
                on_wait([*self._holders(), *ahead])
                time.sleep(POLL_S)
        finally:
            ticket.unlink(missing_ok=True)
            os.close(descriptor)

    def release(self) -> None:
        """Give the devices back; a slot falls when the last process that inherited it has ended."""
        for descriptor in self.file_descriptors:
            os.close(descriptor)
        self.file_descriptors = []

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _queue(self, ticket: Path) -> int:
        # Locked before it gets its name: a ticket that nobody holds is taken for a dead one's.
        begun = ticket.with_name(f".{ticket.name}")
        descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, json.dumps({**self.about, "devices": self.names}).encode())
        begun.rename(ticket)
        return descriptor

    def _ahead(self, ticket: Path) -> list[dict[str, Any]]:
        """Older tickets for one of the same devices, oldest first; those of the dead are removed."""
        found = []
        for path in sorted(ticket.parent.glob("[0-9]*")):
            if path.name >= ticket.name:
                break
            if not _is_held(path):
                path.unlink(missing_ok=True)
                continue
            about = _read(path)
            if set(self.names) & set(about.get("devices", ())):
                found.append(about)
        return found

    def _take(self) -> bool:
        for name in self.names:
            descriptor = self._slot_of(name)
            if descriptor is None:
                self.release()
                return False
            self.file_descriptors.append(descriptor)
        for descriptor in self.file_descriptors:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({**self.about, "pid": os.getpid(), "since": time.time()}).encode(), 0)
        return True

    def _slot_of(self, name: str) -> int | None:
        for number in range(self.num_slots):
            descriptor = os.open(self.folder / f"{name}.{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                os.close(descriptor)
        return None

    def _holders(self) -> list[dict[str, Any]]:
        paths = [self.folder / f"{name}.{number}" for name in self.names for number in range(self.num_slots)]
        found = [_read(path) for path in paths if path.exists() and _is_held(path)]
        return list({about.get("run"): about for about in found}.values())


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
