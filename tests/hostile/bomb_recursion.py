# ruff: noqa
# fmt: off
"""Calls itself without end, with the guard removed."""

import sys

sys.setrecursionlimit(10**9)


def solve(n):
    return solve(n)
