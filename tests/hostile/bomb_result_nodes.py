# ruff: noqa
# fmt: off
"""Returns a million small parts."""

def solve(n):
    return [[]] * 1_000_000
