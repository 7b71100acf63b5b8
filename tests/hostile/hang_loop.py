# ruff: noqa
# fmt: off
"""Hangs: loop."""

def solve(n):
    while True:
        pass
