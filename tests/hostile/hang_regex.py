# ruff: noqa
# fmt: off
"""Hangs: regex."""

def solve(n):
    import re

    return re.match(r"(a+)+$", "a" * 64 + "b")
