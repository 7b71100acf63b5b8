# ruff: noqa
# fmt: off
"""Takes a terabyte at once."""

def solve(n):
    return len("x" * (1 << 40))
