# ruff: noqa
# fmt: off
"""Returns the answer as text."""

def solve(n):
    return str(n * n + 7 * n + 3)
