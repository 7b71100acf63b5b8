"""One builder per folder: a file lock that processes inherit, and a lease with a heartbeat.

The lock (`flock`) is exact on one machine: it is held as long as any process that inherited it lives,
flow, supervisor or stage command, and falls with the last of them. So a dead builder never blocks, and a
living one never has company. The lease says who builds, for messages, and guards stores on network file
systems that do not share locks between machines: a lease of another machine counts while its heartbeat is
fresh, and a builder that finds its own lease taken over must stop.

Not covered: two machines whose clocks differ by more than the lease's life, on such a file system.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.stage import write_json_atomic

HEARTBEAT_S = 10.0
LEASE_LIFE_S = 90.0
"""A foreign lease without a heartbeat for this long is taken over: nine missed beats."""
POLL_S = 0.5


class Lease:
    """The right to build one folder. `acquire` blocks until it is ours."""

    def __init__(self, path: Path) -> None:
        """`path` without suffix: `path.lock` is the lock, `path.lease` says who holds it."""
        self.lock_path = path.with_name(path.name + ".lock")
        self.lease_path = path.with_name(path.name + ".lease")
        self.token = secrets.token_hex(8)
        self.lost = threading.Event()
        self.file_descriptor = -1
        self._ended = threading.Event()
        self._since = time.time()
        self._beat: threading.Thread | None = None

    def acquire(self, on_wait: Callable[[str], None] | None = None) -> None:
        """Wait until nobody else builds, then hold the lease. `on_wait` is told once who it is that we wait for."""
        self.lock_path.parent.mkdir(parents=True, exist_ok=True)
        told = False
        while not self._try():
            if on_wait is not None and not told:
                on_wait(holder(self.lease_path))
                told = True
            time.sleep(POLL_S)
        self._beat = threading.Thread(target=self._keep, daemon=True, name="lease-heartbeat")
        self._beat.start()

    def try_acquire(self) -> bool:
        """Hold the lease if nobody else does, for an act of a moment: without a heartbeat."""
        self.lock_path.parent.mkdir(parents=True, exist_ok=True)
        return self._try()

    def release(self) -> None:
        """Give the lease back; the lock falls when the last process that inherited it has ended."""
        self._ended.set()
        if self._beat is not None:
            self._beat.join(HEARTBEAT_S)
        if self.file_descriptor >= 0:
            if not self.lost.is_set():
                self.lease_path.unlink(missing_ok=True)
            os.close(self.file_descriptor)
            self.file_descriptor = -1

    def _try(self) -> bool:
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        found = _read(self.lease_path)
        foreign = found is not None and found.get("host") != socket.gethostname()
        if found is not None and foreign and time.time() - float(found.get("heartbeat", 0)) < LEASE_LIFE_S:
            os.close(descriptor)
            return False
        self.file_descriptor = descriptor
        self._write()
        return True

    def _write(self) -> None:
        write_json_atomic(
            self.lease_path,
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "token": self.token,
                "since": self._since,
                "heartbeat": time.time(),
            },
        )

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                found = _read(self.lease_path)
                if found is not None and found.get("token") != self.token:
                    self.lost.set()
                    return
                self._write()
            except OSError:  # a full disk or a lost mount must not end the training; the next beat may pass
                continue


def holder(lease_path: Path) -> str:
    """Who holds a lease, in words."""
    found = _read(lease_path)
    if found is None:
        return "another process"
    return f"process {found.get('pid')} on {found.get('host')}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
