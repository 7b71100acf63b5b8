# ruff: noqa
# fmt: off
"""Lists folders that it has no business with."""

import os


def escaped():
    for folder in ("/", "/etc", "/home", "/root", "/tmp", "/proc", "/sys", "/var", "CANARY_FOLDER", ".."):
        try:
            os.listdir(folder)
            return True
        except OSError:
            pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0
