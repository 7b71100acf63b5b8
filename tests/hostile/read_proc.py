# ruff: noqa
# fmt: off
"""Reads anything under /proc: command lines, environments, maps, descriptors."""

import glob
import os


def escaped():
    for path in glob.glob("/proc/*/cmdline") + [f"/proc/{pid}/{what}" for pid in ("self", 1, JUDGE_PID, os.getppid())
                                              for what in ("environ", "cmdline", "maps", "status", "mountinfo")]:
        try:
            with open(path, "rb") as file:
                file.read(1)
            return True
        except OSError:
            pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0
