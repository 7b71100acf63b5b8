# ruff: noqa
# fmt: off
"""Makes a sparse file of a terabyte."""

import os


def solve(n):
    with open("sparse", "wb") as file:
        os.ftruncate(file.fileno(), 1 << 40)
    return 0
