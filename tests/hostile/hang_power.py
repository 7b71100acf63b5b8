# ruff: noqa
# fmt: off
"""Hangs: power."""

def solve(n):
    return len(str(7 ** (10**9)))
