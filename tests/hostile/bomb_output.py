# ruff: noqa
# fmt: off
"""Prints without end."""

def solve(n):
    while True:
        print("x" * 65536)
