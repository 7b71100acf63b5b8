"""The kernel's own means of confinement, called through ctypes: Landlock, seccomp, namespaces, capabilities.

Sources: the man pages landlock(7), seccomp(2), user_namespaces(7), capabilities(7), and the kernel's `uapi` headers.
Each function raises OSError with the kernel's errno when the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_KEPT: list[Any] = []
BARE_PRCTL = ctypes.CDLL(None).prctl
"""prctl(2) with neither errno nor conversions, for children, where every page that is written to costs a copy."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SECCOMP_MODE_FILTER = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_RULESET_VERSION, _PATH_BENEATH = 1, 1
_LOG_SAME_EXEC_OFF = 1  # from ABI 7: refusals are expected here, and would fill the audit log
READ_FILE, READ_DIR = 1 << 2, 1 << 3
WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 1, 1 << 4, 1 << 5, 1 << 7, 1 << 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = 1 | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_SCOPE_ABSTRACT_UNIX_AND_SIGNAL = 3


def prctl(option: int, first: int = 0) -> None:
    """prctl(2)."""
    if _LIBC.prctl(option, ctypes.c_ulong(first), *[ctypes.c_ulong(0)] * 3) < 0:
        raise _error("prctl")


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers; 0 for none."""
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _RULESET_VERSION)))


class Ruleset:
    """A Landlock ruleset that denies every file, every TCP port, and signals and abstract sockets of others, but for
    what `allow` adds. A right that the kernel's version does not know is left out."""

    def __init__(self, only_scope: bool = False) -> None:
        self.abi = landlock_abi()
        bits = 13 if self.abi < 2 else {2: 14, 3: 15, 4: 15}.get(self.abi, 16)
        self.handled = (1 << bits) - 1
        net = 3 if self.abi >= 4 else 0
        scoped = _SCOPE_ABSTRACT_UNIX_AND_SIGNAL if self.abi >= 6 else 0
        attributes = struct.pack("=QQQ", 0 if only_scope else self.handled, 0 if only_scope else net, scoped)
        size = 24 if self.abi >= 6 else 16 if self.abi >= 4 else 8
        self.fd = int(_LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
        if self.fd < 0:
            raise _error("landlock_create_ruleset")

    def allow(self, paths: Iterable[str], rights: int) -> None:
        """Allow `rights` on each path and what lies under it. A path that is not there is passed over."""
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                allowed = rights & self.handled
                if not os.path.isdir(path):
                    allowed &= _FILE_RIGHTS
                rule = struct.pack("=Qi", allowed, fd)
                if _LIBC.syscall(_ADD_RULE, self.fd, _PATH_BENEATH, rule, 0) < 0:
                    raise _error(f"landlock_add_rule {path}")
            finally:
                os.close(fd)

    def enforce(self) -> None:
        """Confine this process and all it starts from now on, for ever."""
        flags = _LOG_SAME_EXEC_OFF if self.abi >= 7 else 0
        if _LIBC.syscall(_RESTRICT_SELF, self.fd, flags) < 0:
            raise _error("landlock_restrict_self")


def laid_out(code: bytes) -> tuple[bytearray, tuple[Any, ...]]:
    """A seccomp program where the kernel can read it, to be changed in place, and the arguments of `BARE_PRCTL` that
    put it in force. Laid out before the fork, so that a child need only fill in its pid."""
    text = bytearray(code)
    shared = (ctypes.c_char * len(text)).from_buffer(text)  # from here on the bytes do not move
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(shared))
    buffer = ctypes.create_string_buffer(header, len(header))
    _KEPT.extend((shared, buffer))
    return text, (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, buffer, 0, 0)


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones."""
    if _LIBC.unshare(flags) < 0:
        raise _error("unshare")


def map_own_user(user: int, group: int) -> None:
    """Make this user the only one of a new user namespace, under its own number."""
    for path, text in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{user} {user} 1"),
        ("/proc/self/gid_map", f"{group} {group} 1"),
    ):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def mount_tmpfs(path: str, size_mb: int, num_inodes: int) -> None:
    """A private, bounded file system in memory, seen by this mount namespace alone."""
    if _LIBC.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) < 0:
        raise _error("mount private")
    options = f"size={size_mb}m,nr_inodes={num_inodes},mode=0700,uid={os.getuid()},gid={os.getgid()}"
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if _LIBC.mount(b"tmpfs", path.encode(), b"tmpfs", flags, options.encode()) < 0:
        raise _error("mount tmpfs")


def drop_capabilities() -> None:
    """Give up every capability, of the bounding set too where that is allowed."""
    for number in range(64):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:
            break
    header = struct.pack("=Ii", 0x20080522, 0)
    if _LIBC.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)) < 0:
        raise _error("capset")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
