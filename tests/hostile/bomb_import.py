# ruff: noqa
# fmt: off
"""Compiles a text of a hundred thousand nested brackets."""

def solve(n):
    return eval("(" * 100_000 + ")" * 100_000)
