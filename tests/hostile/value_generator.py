# ruff: noqa
# fmt: off
"""Returns a generator of the answer."""

def solve(n):
    yield n * n + 7 * n + 3
