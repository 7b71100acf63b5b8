# ruff: noqa
# fmt: off
"""Returns an integer of ten million bits."""

def solve(n):
    return 1 << 10_000_000
