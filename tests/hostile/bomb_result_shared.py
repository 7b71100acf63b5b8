# ruff: noqa
# fmt: off
"""Returns lists that double at each level, which are small until they are written out."""

def solve(n):
    value = []
    for _ in range(60):
        value = [value, value]
    return value
