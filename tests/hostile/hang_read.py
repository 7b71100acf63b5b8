# ruff: noqa
# fmt: off
"""Hangs: read."""

def solve(n):
    import os

    os.read(os.pipe()[0], 1)
