# ruff: noqa
# fmt: off
"""Reads all descriptors that it was left with."""

import os
import select


def escaped():
    for fd in [0, *range(5, 300)]:
        try:
            if select.select([fd], [], [], 0)[0] and os.read(fd, 100):
                return True
        except OSError:
            pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0
