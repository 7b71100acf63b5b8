"""The system-call filter: what a candidate's process may ask of the kernel. Everything else fails with EPERM.

An allow list, so that a call that a later kernel brings is refused too. It is a classic BPF program for seccomp
(https://docs.kernel.org/userspace-api/seccomp_filter.html), built here without a library. Numbers are those of the
kernel's `unistd` headers for x86_64 and for aarch64.

Allowed with conditions: `clone` only for a thread; `kill` and `tgkill` only at the process itself; `prctl` only for
names; `fcntl` and `ioctl` only for descriptors' own flags (not F_SETOWN, which can signal others); `prlimit64` only to
read. A process that speaks another architecture's calls is killed.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

# name: (x86_64, aarch64); None where the architecture has no such call
CALLS: dict[str, tuple[int | None, int | None]] = {
    # files, within what Landlock leaves
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436), "open": (2, None),
    "openat": (257, 56), "creat": (85, None), "stat": (4, None), "lstat": (6, None), "fstat": (5, 80),
    "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "fstatfs": (138, 44),
    "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17), "readlink": (89, None),
    "readlinkat": (267, 78), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "truncate": (76, 45),
    "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83), "flock": (73, 32), "chdir": (80, 49),
    "fchdir": (81, 50), "umask": (95, 166), "fadvise64": (221, 223),
    # waiting
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "wait4": (61, 260),
    "waitid": (247, 95), "pause": (34, None),
    # memory and threads
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293),
    "set_tid_address": (218, 96), "arch_prctl": (158, None), "membarrier": (324, 283), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94),
    # signals to itself, and clocks
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "getrusage": (98, 165),
    # what it may know
    "getrandom": (318, 278), "sysinfo": (99, 179), "uname": (63, 160), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150), "getpgrp": (111, None),
    "getpgid": (121, 155), "getsid": (124, 156), "getpriority": (140, 141), "getrlimit": (97, 163),
    "getcpu": (309, 168),
}  # fmt: skip
_CONDITIONAL = {
    "clone": (56, 220), "kill": (62, 129), "tgkill": (234, 131), "prctl": (157, 167), "fcntl": (72, 25),
    "ioctl": (16, 29), "prlimit64": (302, 261), "clone3": (435, 435),
}  # fmt: skip
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine: the column above, and the kernel's AUDIT_ARCH number."""

CLONE_THREAD = 0x10000
CLONE_NEW = 0x7E020080
"""Every CLONE_NEW* flag: no thread may bring a namespace."""
PRCTLS = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA (glibc names its memory)
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # dup, flags, locks, F_DUPFD_CLOEXEC, F_GETPIPE_SZ
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIO(N)CLEX

_LOAD, _EQUAL, _AT_LEAST, _ANY, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NUMBER, _ARCHITECTURE = 0, 4
_PID_SLOT = 0x5EC0_0000
"""Stands in a template for the pid that is only known after the fork."""


def supported() -> bool:
    """Whether there is a filter for this machine."""
    return os.uname().machine in ARCHITECTURES


def template(machine: str | None = None) -> bytes:
    """The program for a machine, this one unless another is named, with room for the process's own pid (`program`).
    Raises KeyError where `supported` is false.

    Calls are found by bisection: the kernel runs a new filter once for each of its system calls, to learn which are
    always allowed, so a list of comparisons would cost each child what three hundred times as many steps do.
    """
    column, architecture = ARCHITECTURES[machine or os.uname().machine]
    bodies: dict[int, _Code] = {
        number: [(_RETURN, 0, 0, _ALLOW)] for numbers in CALLS.values() if (number := numbers[column]) is not None
    }
    own = _PID_SLOT
    bodies[_CONDITIONAL["clone"][column]] = _thread_only()
    bodies[_CONDITIONAL["kill"][column]] = _one_of(0, (own,))
    bodies[_CONDITIONAL["tgkill"][column]] = _one_of(0, (own,))
    bodies[_CONDITIONAL["prctl"][column]] = _one_of(0, PRCTLS)
    bodies[_CONDITIONAL["fcntl"][column]] = _one_of(1, FCNTLS)
    bodies[_CONDITIONAL["ioctl"][column]] = _one_of(1, IOCTLS)
    bodies[_CONDITIONAL["prlimit64"][column]] = _no_pointer(2)
    # glibc falls back from clone3, whose flags a filter cannot read, to clone only when it is told ENOSYS.
    bodies[_CONDITIONAL["clone3"][column]] = [(_RETURN, 0, 0, _error(errno.ENOSYS))]
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER), *_bisected(_ranges(bodies)),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def pid_offsets(made: bytes) -> list[int]:
    """Where in a `template` the process's own pid goes, as four bytes of the machine's order."""
    slot = struct.pack("=HBBI", _EQUAL, 0, 1, _PID_SLOT)
    return [at + 4 for at in range(0, len(made), 8) if made[at : at + 8] == slot]


def program(made: bytes, pid: int) -> bytes:
    """The program of a `template` for the process with this pid."""
    filled = bytearray(made)
    for at in pid_offsets(made):
        filled[at : at + 4] = pid.to_bytes(4, sys.byteorder)
    return bytes(filled)


_Code = list[tuple[int, int, int, int]]


def _error(number: int) -> int:
    return 0x00050000 | number


def _argument(index: int, high: bool = False) -> int:
    """Offset of half an argument; both architectures are little-endian."""
    return 16 + 8 * index + (4 if high else 0)


def _ranges(bodies: dict[int, _Code]) -> list[tuple[int, _Code]]:
    """All numbers from 0 on as ranges: the first number of each, and what its calls run. Gaps are refused."""
    refused: _Code = [(_RETURN, 0, 0, _error(errno.EPERM))]
    found = [(0, refused)]
    for number in sorted(bodies):
        for first, body in ((number, bodies[number]), (number + 1, refused)):
            if found[-1][0] == first:
                found.pop()
            if not found or found[-1][1] != body:
                found.append((first, body))
    return found


def _bisected(ranges: list[tuple[int, _Code]]) -> _Code:
    """Run the body of the range that the number lies in. Every body returns in every case."""
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    low, high = _bisected(ranges[:half]), _bisected(ranges[half:])
    if len(low) < 256:
        return [(_AT_LEAST, len(low), 0, ranges[half][0]), *low, *high]
    return [(_AT_LEAST, 0, 1, ranges[half][0]), (_JUMP, 0, 0, len(low)), *low, *high]


def _one_of(index: int, values: tuple[int, ...]) -> _Code:
    code: _Code = [(_LOAD, 0, 0, _argument(index))]
    for value in values:
        code += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*code, (_RETURN, 0, 0, _error(errno.EPERM))]


def _thread_only() -> _Code:
    return [
        (_LOAD, 0, 0, _argument(0)), (_ANY, 0, 2, CLONE_THREAD), (_ANY, 1, 0, CLONE_NEW), (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _error(errno.EPERM)),
    ]  # fmt: skip


def _no_pointer(index: int) -> _Code:
    return [
        (_LOAD, 0, 0, _argument(index)), (_EQUAL, 0, 3, 0), (_LOAD, 0, 0, _argument(index, high=True)),
        (_EQUAL, 0, 1, 0), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _error(errno.EPERM)),
    ]  # fmt: skip
