# ruff: noqa
# fmt: off
"""Returns a list nested a hundred thousand times."""

def solve(n):
    value = []
    for _ in range(100_000):
        value = [value]
    return value
