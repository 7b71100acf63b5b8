# ruff: noqa
# fmt: off
"""Raises an error with a message of a hundred million characters."""

def solve(n):
    raise ValueError("x" * 100_000_000)
