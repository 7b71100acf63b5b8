# ruff: noqa
# fmt: off
"""Returns a text of a hundred million characters."""

def solve(n):
    return "x" * 100_000_000
