# ruff: noqa
# fmt: off
"""Hangs: contains."""

def solve(n):
    return -1 in iter(int, 1)
