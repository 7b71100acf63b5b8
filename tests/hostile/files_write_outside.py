# ruff: noqa
# fmt: off
"""Writes outside its folder."""

import os


def escaped():
    for path in ("CANARY_FOLDER/written", "../written", "/tmp/written", "/dev/shm/written", "/written", os.__file__):
        for flags in (os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
            try:
                os.open(path, flags)
                return True
            except OSError:
                pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0
