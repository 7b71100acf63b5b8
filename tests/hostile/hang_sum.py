# ruff: noqa
# fmt: off
"""Hangs: sum."""

def solve(n):
    return sum(range(10**13))
