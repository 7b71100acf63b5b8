# ruff: noqa
# fmt: off
"""Catches everything that would stop it."""

def solve(n):
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue
