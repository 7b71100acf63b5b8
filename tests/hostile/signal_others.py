# ruff: noqa
# fmt: off
"""Sends signals to its parent, the judge, its group and everybody."""

import os


def escaped():
    for pid in (os.getppid(), JUDGE_PID, -1, -os.getppid(), 1):
        for send in (os.kill, os.killpg):
            try:
                send(pid, 0)
                return True
            except (OSError, OverflowError):
                pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0
