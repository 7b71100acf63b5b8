# ruff: noqa
# fmt: off
"""Hangs: sleep."""

def solve(n):
    import time

    time.sleep(600)
