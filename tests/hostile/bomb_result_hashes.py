# ruff: noqa
# fmt: off
"""Returns a dict whose keys all have one hash."""

def solve(n):
    return dict.fromkeys(k * (2**61 - 1) for k in range(3000))
