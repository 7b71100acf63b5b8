# ruff: noqa
# fmt: off
"""Returns every number there is, for a test that asks whether the answer is among them."""

def solve(n):
    return list(range(1000))
