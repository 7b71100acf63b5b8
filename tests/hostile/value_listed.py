# ruff: noqa
# fmt: off
"""Returns the answer in a list."""

def solve(n):
    return [n * n + 7 * n + 3]
