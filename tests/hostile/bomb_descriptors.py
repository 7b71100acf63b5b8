# ruff: noqa
# fmt: off
"""Opens descriptors without end."""

import os


def solve(n):
    hoard = []
    while True:
        hoard.append(os.dup(0))
