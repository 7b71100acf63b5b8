# ruff: noqa
# fmt: off
"""Ends with raise keyboard interrupt when it is called."""

def solve(n):
    raise KeyboardInterrupt
