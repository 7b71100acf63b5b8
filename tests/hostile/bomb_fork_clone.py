# ruff: noqa
# fmt: off
"""Forks by system call."""

import ctypes
import platform


def solve(n):
    libc = ctypes.CDLL(None)
    for _ in range(1000):
        libc.syscall(56 if platform.machine() == "x86_64" else 220, 17, 0, 0, 0, 0)
        libc.fork()
        libc.vfork()
    return 0
