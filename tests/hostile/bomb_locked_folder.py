# ruff: noqa
# fmt: off
"""Leaves folders and files that nobody may open."""

import os


def solve(n):
    os.mkdir("locked", 0o700)
    open("locked/inner", "w").close()
    os.mkdir("none", 0)
    os.umask(0o777)
    os.makedirs("locked/more", 0)
    return 0
