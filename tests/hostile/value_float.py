# ruff: noqa
# fmt: off
"""Returns the answer as a float."""

def solve(n):
    return float(n * n + 7 * n + 3)
