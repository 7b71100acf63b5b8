"""Whose turn it is on a device: one stage at a time computes on each, in the order in which they asked.

A slot of a device is a locked file of this machine (`flock`, as in `flows/lease.py`): the stage's processes inherit it,
so that it falls when the last of them has ended, is never lost while one of them lives, and holds among runs from a
terminal, `derive up` and Prefect workers alike, with or without a server. Whoever waits holds a locked ticket, and the
oldest ticket is served first. What the holder is doing stands in the slot.

    FOLDER/cuda-0.0                 the slot of the first GPU; cuda-0.1 is a second one, with DERIVE_SLOTS=2
    FOLDER/waiting/TIME-PROCESS     a ticket

FOLDER is $DERIVE_DEVICES, else `derive-devices` in the first folder of `SHARED` that all users of the machine may write
to, so that runs of different users, stores and environments see one another; its files belong to whoever came first and
are open to all, and what a dead process left there counts as nothing, also where only its owner may remove it. What
others wrote there is not trusted: no link is followed, no pipe waited for, and only names of tickets are removed. GPUs
count by CUDA_VISIBLE_DEVICES. A run on the CPU profile takes a slot only where DERIVE_SLOTS says how many there are, as
`derive up` does.

Not covered: containers that do not share the folder; other machines (whose devices are others); somebody who removes a
slot's file while it is held, or takes slots for spite.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError, printable
from configs.settings.machine import Machine

SLOTS_VARIABLE = "DERIVE_SLOTS"
FOLDER_VARIABLE = "DERIVE_DEVICES"
SHARED = (Path("/run/lock"), Path("/dev/shm"), Path("/tmp"))
"""Not TMPDIR, which is each environment's own, nor /run/user, which is each user's; the first two are empty after a
start of the machine and never on a network. /dev/shm is second because logind may empty it when a user leaves."""
FOLDER_NAME = "derive-devices"
FORGOTTEN_S = 60.0
"""Age of a ticket that was begun and never got its name."""
WITHOUT_DEVICE = ("corpus", "release")
"""Kinds of stages that leave a GPU alone."""
POLL_S = 0.5
TICKET = re.compile(r"\.?[0-9]{20}-[0-9]+")
"""Whatever else lies among the tickets is none, and stays."""
LONGEST_TEXT = 65_536
"""Bytes of a slot or ticket that are read."""


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


def shared_folder() -> Path:
    """Where every run of this machine looks for slots. Raises UserError where DERIVE_DEVICES has to name it."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given)
    for parent in SHARED:
        # By its mode, not by what this user may do: root and all others must come to the same folder.
        if parent.is_dir() and stat.S_IMODE(parent.stat().st_mode) & 0o1002 == 0o1002 and not _is_read_only(parent):
            return parent / FOLDER_NAME
    raise UserError(
        f"{FOLDER_VARIABLE}: none of {', '.join(map(str, SHARED))} is a folder that every user may write to, so runs "
        "cannot see which devices are taken; name a folder that they share"
    )


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


class Turn:
    """The right to compute on some devices, all of them or none. Release it, always.

    Args:
        names: The devices; with none there is nothing to wait for.
        about: Who takes them: `run`, `stage` and `folder`, for those who wait behind.
    """

    def __init__(self, names: Sequence[str], about: Mapping[str, Any]) -> None:
        self.folder = shared_folder() if names else Path()
        self.names, self.num_slots, self.about = tuple(names), num_slots() or 1, dict(about)
        self.file_descriptors: list[int] = []

    def acquire(self, on_wait: Callable[[list[dict[str, Any]]], None]) -> None:
        """Wait for the turn. `on_wait` is called every half second with those ahead: who computes, then who waits.

        Raises UserError where the slots cannot be looked at.
        """
        if not self.names:
            return
        waiting = self.folder / "waiting"
        ticket = waiting / f"{time.time_ns():020d}-{os.getpid()}"
        with self._or_told():
            _open_to_all(self.folder)
            _open_to_all(waiting)
            descriptor = self._queue(ticket)
        try:
            while True:
                with self._or_told():
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

    @contextlib.contextmanager
    def _or_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.release()
            raise UserError(
                f"{FOLDER_VARIABLE}: {error.filename or self.folder} cannot be used ({error.strerror}), so it is not "
                "known whether a device is taken; have its owner remove it, or name a folder that all runs share"
            ) from error

    def _queue(self, ticket: Path) -> int:
        # Locked before it gets its name: a ticket that nobody holds is taken for a dead one's.
        begun = ticket.with_name(f".{ticket.name}")
        descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.fchmod(descriptor, 0o644)  # whatever the umask; only now, lest another user holds the lock before
        os.write(descriptor, json.dumps({**self.about, "devices": self.names}).encode())
        begun.rename(ticket)
        return descriptor

    def _ahead(self, ticket: Path) -> list[dict[str, Any]]:
        """Older tickets for one of the same devices, oldest first; those of the dead are removed."""
        for path in _tickets(ticket.parent, ".[0-9]*"):
            if not _is_held(path) and _age_s(path) > FORGOTTEN_S:
                _remove(path)
        found = []
        for path in _tickets(ticket.parent, "[0-9]*"):
            if path.name >= ticket.name:
                break
            if not _is_held(path):
                _remove(path)
                continue
            about = _read(path)
            if set(self.names) & set(about.get("devices", [])):
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
            path = self.folder / f"{name}.{number}"
            descriptor = _open_slot(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):  # else it was removed in between
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            os.close(descriptor)
        return None

    def _holders(self) -> list[dict[str, Any]]:
        paths = [self.folder / f"{name}.{number}" for name in self.names for number in range(self.num_slots)]
        found = [_read(path) for path in paths if path.exists() and _is_held(path)]
        return list({about.get("run"): about for about in found}.values())


def _open_to_all(folder: Path) -> None:
    """Make a folder in which every user may make files, and remove only their own; as it is where it is there."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if folder.is_symlink() or not folder.is_dir():
            raise
    else:
        folder.chmod(0o1777)  # whatever the umask


def _open_slot(path: Path) -> int:
    """A slot's file, which any user may lock and write; never what a link points at."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Without O_CREAT, which the kernel refuses on another user's file (fs.protected_regular).
        return _plain(os.open(path, flags), path)
    except FileNotFoundError:
        pass
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:  # somebody else made it just now
        return _plain(os.open(path, flags), path)
    os.fchmod(descriptor, 0o666)  # whatever the umask
    return descriptor


def _plain(descriptor: int, path: Path) -> int:
    """The descriptor, if it is of a file of its own: a second name may be somebody's file that a slot would overwrite.

    Raises OSError.
    """
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_nlink < 2:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "no plain file with one name", str(path))


def _tickets(waiting: Path, pattern: str) -> list[Path]:
    return sorted(path for path in waiting.glob(pattern) if TICKET.fullmatch(path.name))


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):  # another user's stays, and counts as nothing
        path.unlink()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _opened(path: Path) -> int:
    """A descriptor to look at a file of anybody's. Raises OSError, also where it is none: a pipe would keep us."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "no plain file", str(path))


def _is_held(path: Path) -> bool:
    try:
        descriptor = _opened(path)
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
    """What a slot or ticket says, as far as it has the form that it should have: any user may have written it."""
    try:
        with open(_opened(path), "rb") as file:
            value = json.loads(file.read(LONGEST_TEXT))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    found: dict[str, Any] = {}
    for name in ("run", "stage"):
        if isinstance(value.get(name), str):
            found[name] = printable(value[name])
    if isinstance(value.get("folder"), str) and "\0" not in value["folder"]:
        found["folder"] = value["folder"]
    if isinstance(value.get("devices"), list):
        found["devices"] = [one for one in value["devices"] if isinstance(one, str)]
    return found
